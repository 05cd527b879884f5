package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
)

// GenerateOptions say what a generated v2 log is like.
type GenerateOptions struct {
	Leaves  int
	Bound   int // one signing job in so many is about files that PyPI lists; 0: none
	PerCert int // leaves signed with one certificate, as one signing job does; 0: 2
}

// filesPerProject is how many generated files share a project.
const filesPerProject = 10

// Generate fills the lab's v2 log with leaves as a public log holds them, six in
// ten hashedrekord, the others dsse, and uploads the files that bound leaves are
// about to its PyPI, without provenance. It returns the projects.
func (l *Lab) Generate(o GenerateOptions) (projects []string, err error) {
	if o.PerCert == 0 {
		o.PerCert = 2
	}
	keys := make([]*ecdsa.PrivateKey, 64)
	for i := range keys {
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	leaves := make([][]byte, o.Leaves)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for first := 0; first < o.Leaves; first += o.PerCert {
		g.Go(func() error {
			return l.job(keys[first%len(keys)], first, leaves[first:min(first+o.PerCert, o.Leaves)], o)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, leaf := range leaves {
		l.V2.LogLeaf(leaf)
		n, bound := o.file(i)
		if !bound {
			continue
		}
		u := generatedFile(n)
		l.PyPI.Upload(u)
		if n := len(projects); n == 0 || projects[n-1] != u.Project {
			projects = append(projects, u.Project)
		}
	}
	return projects, nil
}

// file is the number of the file that leaf n is about, if it is about one. All
// leaves of a job are or none is, as when a release job signs sdist and wheel.
func (o GenerateOptions) file(n int) (int, bool) {
	job := n / o.PerCert
	if o.Bound == 0 || job%o.Bound != 0 {
		return 0, false
	}
	return job/o.Bound*o.PerCert + n%o.PerCert, true
}

func generatedFile(n int) Upload {
	u := Upload{Project: fmt.Sprintf("bench%05d", n/filesPerProject), Version: fmt.Sprintf("1.%d", n%filesPerProject), Size: 4096}
	u.Filename = fmt.Sprintf("%s-%s.tar.gz", u.Project, u.Version)
	u.SHA256 = Digest(u.Filename)
	return u
}

// job makes the leaves of one signing job: one certificate, a few signatures.
func (l *Lab) job(key *ecdsa.PrivateKey, first int, leaves [][]byte, o GenerateOptions) error {
	id := GitHub{Owner: "an-organisation-of-ordinary-length", Repo: fmt.Sprintf("a-repository-with-a-name-as-long-as-many-have-%06d", first),
		RepoID: fmt.Sprint(100_000_000 + first), Ref: "refs/tags/v2026.11.21", RunID: fmt.Sprint(10_000_000_000 + first), Environment: "release"}
	cert, err := l.CA.Issue(id, &key.PublicKey, l.clock().Truncate(time.Second))
	if err != nil {
		return err
	}
	for i := range leaves {
		n := first + i
		if f, bound := o.file(n); bound {
			u := generatedFile(f)
			s, err := signWith(key, cert, publishStatement(u.Filename, u.SHA256), u.Filename, u.SHA256)
			if err != nil {
				return err
			}
			if leaves[i] = s.leafV2(); n%10 >= 6 {
				leaves[i] = s.leafV2DSSE()
			}
			continue
		}
		digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
		sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			return err
		}
		if leaves[i] = hashedV2(digest, sig, cert); n%10 >= 6 {
			leaves[i] = dsseV2(digest, sig, cert)
		}
	}
	return nil
}
