package index

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigtrail/monitor"
)

// packedRows are rows that SQLite has put into one text: of each its whole numbers, "-"
// for NULL, then its bytes, whose lengths are the last of the numbers; after each of all
// these a space. Handing a row over, and each of its columns, takes far longer than
// reading it, and a history is hundreds of rows of a dozen columns.
type packedRows struct {
	rest string
	err  error
}

// packRows is the SQL of rows in no order, and of how many they are, with their numbers
// and texts, each an expression and none of them NULL.
func packRows(numbers, texts []string, from string) string {
	values := slices.Clone(numbers)
	for _, t := range texts {
		values = append(values, `octet_length(`+t+`)`)
	}
	values = append(values, texts...)
	return `SELECT count(*), ifnull(group_concat(concat_ws(' ', ` + strings.Join(values, `, `) + `, ''), ''), '') ` + from
}

// orNull is a number for packRows that may be NULL.
func orNull(number string) string { return `ifnull(` + number + `, '-')` }

// number is the next one, and whether it is one; it is 0 where it is NULL.
func (p *packedRows) number() (n int64, given bool) {
	i, s := 0, p.rest
	negative := i < len(s) && s[i] == '-'
	if negative {
		i++
	}
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		n, given = n*10+int64(s[i]-'0'), true
	}
	if i == 0 || i == len(s) || s[i] != ' ' {
		p.fail(errors.New("packed rows: a number is wanted"))
		return 0, false
	}
	if negative {
		n = -n
	}
	p.rest = s[i+1:]
	return n, given
}

func (p *packedRows) int() int64 {
	n, _ := p.number()
	return n
}

// time is a number of microseconds; the zero time where that is NULL.
func (p *packedRows) time() time.Time {
	if n, given := p.number(); given {
		return time.UnixMicro(n).UTC()
	}
	return time.Time{}
}

// bytes are the next n.
func (p *packedRows) bytes(n int64) string {
	if n < 0 || n >= int64(len(p.rest)) {
		p.fail(fmt.Errorf("packed rows: %d bytes wanted, %d left", n, len(p.rest)))
		return ""
	}
	text := p.rest[:n]
	p.rest = p.rest[n+1:]
	return text
}

func (p *packedRows) hash(n int64) (h monitor.Hash) {
	if n != int64(len(h)) {
		p.fail(fmt.Errorf("packed rows: a hash of %d bytes", n))
	}
	copy(h[:], p.bytes(n))
	return h
}

func (p *packedRows) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	p.rest = ""
}
