package pypi

import (
	"fmt"
	"strings"
)

// options are those of one line of a requirements file.
type options struct {
	includes []string // files, of requirements and of constraints
	hashes   []string
	omitted  []string // why
}

type optionKind int

const (
	flag     optionKind = iota + 1
	setting             // with a value that says nothing of projects
	include             // of another file
	editable            // of a path or an address
	source              // where else to look for projects
	hash
)

var optionKinds = map[string]optionKind{
	"-r": include, "--requirement": include, "-c": include, "--constraint": include,
	"-e": editable, "--editable": editable,
	"-i": source, "--index-url": source, "--pypi-url": source, "--extra-index-url": source, "-f": source, "--find-links": source,
	"--hash": hash,
	"--pre":  flag, "--no-index": flag, "--prefer-binary": flag, "--require-hashes": flag,
	"--no-binary": setting, "--only-binary": setting, "--trusted-host": setting, "--use-feature": setting,
	"--config-settings": setting, "--config-setting": setting, "-C": setting, "--global-option": setting, "--install-option": setting,
}

// parseOptions reads what follows the requirement of a line, or stands alone. An
// option that is not known cannot name a project; it is left out, and said.
func parseOptions(text string) (options, error) {
	var o options
	words, err := shellWords(text)
	if err != nil {
		return o, err
	}
	for len(words) > 0 {
		name, value, given := cutOption(words[0])
		words = words[1:]
		kind := optionKinds[name]
		if kind == 0 {
			o.omitted = append(o.omitted, "an option that is not known")
			for len(words) > 0 && !strings.HasPrefix(words[0], "-") {
				words = words[1:]
			}
			continue
		}
		if kind == flag {
			continue
		}
		if !given {
			if len(words) == 0 {
				return o, fmt.Errorf("option %s needs a value", name)
			}
			value, words = words[0], words[1:]
		}
		if value == "" {
			return o, fmt.Errorf("option %s needs a value", name)
		}
		switch kind {
		case include:
			o.includes = append(o.includes, value)
		case editable:
			o.omitted = append(o.omitted, "editable: comes from a path or an address, not from an index")
		case source:
			o.omitted = append(o.omitted, "names another place to look for projects; only the configured index is watched")
		case hash:
			h, err := parseHash(value)
			if err != nil {
				return o, err
			}
			o.hashes = append(o.hashes, h)
		}
	}
	return o, nil
}

// cutOption takes apart --name=value, --name, -nvalue and -n.
func cutOption(word string) (name, value string, given bool) {
	if strings.HasPrefix(word, "--") {
		return strings.Cut(word, "=")
	}
	if len(word) > 2 && word[0] == '-' {
		return word[:2], strings.TrimPrefix(word[2:], "="), true
	}
	return word, "", false
}

// shellWords splits as a shell does: at spaces outside quotes.
func shellWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	within, quote, escaped := false, rune(0), false
	for _, c := range text {
		switch {
		case escaped:
			if quote == '"' && c != '"' && c != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, within = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, within = c, true
		case c == ' ' || c == '\t':
			if within {
				words = append(words, word.String())
				word.Reset()
			}
			within = false
		default:
			word.WriteRune(c)
			within = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quotation that does not end")
	}
	if within {
		words = append(words, word.String())
	}
	return words, nil
}
