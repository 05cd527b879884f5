package pypi

import (
	"cmp"
	"slices"
	"strings"
)

// SameDistribution reports whether two file names mean the same file, as PyPI
// compares the name in an attestation with the name of an upload: the same project,
// the same version, and for wheels the same build and the same set of tags, in
// whatever order. Only wheels and source distributions (.tar.gz, .zip) have other
// spellings; all else is the same letter by letter only.
func SameDistribution(a, b string) bool {
	if a == b {
		return validFilename(a)
	}
	da, okA := parseDistribution(a)
	db, okB := parseDistribution(b)
	return okA && okB && da.project == db.project && SameVersion(da.version, db.version) && da.build == db.build && slices.Equal(da.tags, db.tags)
}

// A distribution is what a file name says.
type distribution struct {
	project string // normalised
	version string
	build   string
	tags    []string // of a wheel, PYTHON-ABI-PLATFORM, sorted
}

// maxTags is how many combinations of tags a wheel's name may stand for; real ones
// have a few.
const maxTags = 1000

func parseDistribution(filename string) (d distribution, ok bool) {
	var err error
	if d.version, err = ParseFilename(filename, ""); err != nil {
		return d, false
	}
	stem, wheel := strings.CutSuffix(filename, ".whl")
	if !wheel {
		for _, ending := range []string{".tar.gz", ".zip"} {
			if stem, ok = strings.CutSuffix(filename, ending); ok {
				break
			}
		}
		i := strings.LastIndexByte(stem, '-')
		d.project = Normalize(stem[:max(i, 0)])
		return d, ok && ValidName(stem[:max(i, 0)]) && stem[i+1:] == d.version
	}
	parts := strings.Split(stem, "-")
	d.project = Normalize(parts[0])
	if len(parts) == 6 {
		d.build = parts[2]
		digits := len(d.build) - len(strings.TrimLeft(d.build, "0123456789"))
		d.build = cmp.Or(strings.TrimLeft(d.build[:digits], "0"), "0") + d.build[digits:] // a number, then text
	}
	var sets [3][]string
	combinations := 1
	for i, set := range parts[len(parts)-3:] {
		sets[i] = strings.Split(strings.ToLower(set), ".")
		combinations *= len(sets[i])
	}
	if !ValidName(parts[0]) || combinations > maxTags {
		return d, false
	}
	for _, python := range sets[0] {
		for _, abi := range sets[1] {
			for _, platform := range sets[2] {
				d.tags = append(d.tags, python+"-"+abi+"-"+platform)
			}
		}
	}
	slices.Sort(d.tags)
	d.tags = slices.Compact(d.tags)
	return d, true
}
