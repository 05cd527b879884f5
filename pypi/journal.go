package pypi

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sigtrail/index"
)

// journalBatch is how many rows PyPI gives at once: a full batch means that there
// are more.
const journalBatch = 50_000

// LastSerial asks for the newest serial of the journal. (XML-RPC
// changelog_last_serial)
func (c *Client) LastSerial(ctx context.Context) (int64, error) {
	v, err := c.xmlrpc(ctx, "changelog_last_serial", "")
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok || n < 0 {
		return 0, fmt.Errorf("changelog_last_serial: answer is no serial")
	}
	return n, nil
}

// Changes asks for the rows behind a serial, oldest first, at most 50,000.
// (XML-RPC changelog_since_serial)
func (c *Client) Changes(ctx context.Context, since int64) ([]index.JournalRow, error) {
	v, err := c.xmlrpc(ctx, "changelog_since_serial", "<param><value><int>"+strconv.FormatInt(since, 10)+"</int></value></param>")
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("changelog_since_serial: answer is no list")
	}
	rows := make([]index.JournalRow, 0, len(list))
	last := since
	for _, item := range list {
		row, err := journalRow(item)
		if err != nil {
			return nil, fmt.Errorf("changelog_since_serial: %w", err)
		}
		if row.Serial <= last {
			return nil, fmt.Errorf("changelog_since_serial: serial %d behind %d", row.Serial, last)
		}
		last = row.Serial
		rows = append(rows, row)
	}
	return rows, nil
}

// journalRow reads [name, version or nil, seconds, action, serial].
func journalRow(item any) (index.JournalRow, error) {
	f, ok := item.([]any)
	if !ok || len(f) != 5 {
		return index.JournalRow{}, errors.New("a row without five fields")
	}
	name, okName := f[0].(string)
	at, okAt := f[2].(int64)
	action, okAction := f[3].(string)
	serial, okSerial := f[4].(int64)
	if !okName || !okAt || !okAction || !okSerial || len(name) > maxFilename || len(action) > 4096 {
		return index.JournalRow{}, errors.New("a row with fields of other types")
	}
	row := index.JournalRow{Serial: serial, Project: Normalize(name), Name: name, At: time.Unix(at, 0).UTC(), Action: action}
	if v, ok := f[1].(string); ok {
		row.Version = &v
	} else if f[1] != nil {
		return index.JournalRow{}, errors.New("a version of another type")
	}
	return row, nil
}

func (c *Client) xmlrpc(ctx context.Context, method, params string) (any, error) {
	body := `<?xml version="1.0"?><methodCall><methodName>` + method + `</methodName><params>` + params + `</params></methodCall>`
	a, err := c.call(ctx, method, http.MethodPost, c.address("/pypi"), []byte(body), http.Header{"Content-Type": {"text/xml"}}, maxJournal)
	if err != nil {
		return nil, err
	}
	v, err := parseResponse(a.body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return v, nil
}

// A fault is XML-RPC's error answer; PyPI's rate limit comes as one.
type fault struct{ code, text string }

func (f *fault) Error() string { return "fault " + f.code + ": " + f.text }

// parseResponse reads a methodResponse with one value. Strings, integers, nil and
// arrays are all that the journal uses; structs occur in faults.
func parseResponse(b []byte) (any, error) {
	d := &decoder{xml.NewDecoder(bytes.NewReader(b))}
	if err := d.open("methodResponse"); err != nil {
		return nil, err
	}
	t, err := d.start()
	if err != nil {
		return nil, err
	}
	switch t {
	case "params":
		if err := errors.Join(d.open("param"), d.open("value")); err != nil {
			return nil, err
		}
		return d.value(0)
	case "fault":
		if err := d.open("value"); err != nil {
			return nil, err
		}
		v, err := d.value(0)
		if err != nil {
			return nil, err
		}
		m, _ := v.(map[string]any)
		text, _ := m["faultString"].(string)
		return nil, &fault{code: fmt.Sprint(m["faultCode"]), text: fmt.Sprintf("%.200q", text)}
	}
	return nil, fmt.Errorf("unexpected <%s>", t)
}

// errEnd reports a closing tag where an opening one could stand.
var errEnd = errors.New("closing tag")

type decoder struct{ *xml.Decoder }

// start is the name of the next opening tag; closing ones before it are an error
// unless they are passed over by end.
func (d *decoder) start() (string, error) {
	for {
		t, err := d.Token()
		if err != nil {
			return "", fmt.Errorf("reading XML: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t.Name.Local, nil
		case xml.EndElement:
			return "", errEnd
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return "", fmt.Errorf("text %.40q between tags", t)
			}
		}
	}
}

func (d *decoder) open(name string) error {
	t, err := d.start()
	if err == nil && t != name {
		err = fmt.Errorf("unexpected <%s>, want <%s>", t, name)
	}
	return err
}

// value reads what stands inside <value> up to its end.
func (d *decoder) value(depth int) (any, error) {
	if depth > 4 {
		return nil, errors.New("values nested too deep")
	}
	var text strings.Builder
	for {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("reading XML: %w", err)
		}
		switch t := t.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.EndElement: // no type given: a string
			return text.String(), nil
		case xml.StartElement:
			v, err := d.typed(t.Name.Local, depth)
			if err != nil {
				return nil, err
			}
			return v, d.Skip() // to </value>
		}
	}
}

func (d *decoder) typed(kind string, depth int) (any, error) {
	switch kind {
	case "array":
		return d.array(depth)
	case "struct":
		return d.structure(depth)
	}
	text, err := d.text()
	if err != nil {
		return nil, err
	}
	switch kind {
	case "string":
		return text, nil
	case "int", "i4", "i8":
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%.40q is no integer", text)
		}
		return n, nil
	case "nil":
		return nil, nil
	}
	return nil, fmt.Errorf("unexpected type <%.20s>", kind)
}

// text reads up to the end of an element that may hold nothing but text.
func (d *decoder) text() (string, error) {
	var b strings.Builder
	for {
		t, err := d.Token()
		if err != nil {
			return "", fmt.Errorf("reading XML: %w", err)
		}
		switch t := t.(type) {
		case xml.CharData:
			b.Write(t)
		case xml.EndElement:
			return b.String(), nil
		case xml.StartElement:
			return "", fmt.Errorf("unexpected <%.20s> in text", t.Name.Local)
		}
	}
}

func (d *decoder) array(depth int) (any, error) {
	list := []any{}
	if err := d.open("data"); err != nil {
		return nil, err
	}
	for {
		t, err := d.start()
		if errors.Is(err, errEnd) {
			return list, d.Skip() // </data> is behind us, up to </array>
		}
		if err != nil {
			return nil, err
		}
		if t != "value" || len(list) >= 4*journalBatch {
			return nil, fmt.Errorf("unexpected <%.20s> in an array of %d", t, len(list))
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

func (d *decoder) structure(depth int) (any, error) {
	m := map[string]any{}
	for {
		t, err := d.start()
		if errors.Is(err, errEnd) {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		if t != "member" || len(m) > 16 {
			return nil, fmt.Errorf("unexpected <%.20s> in a struct", t)
		}
		if err := d.open("name"); err != nil {
			return nil, err
		}
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		if err := d.open("value"); err != nil {
			return nil, err
		}
		if m[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
		if err := d.Skip(); err != nil { // </member>
			return nil, err
		}
	}
}
