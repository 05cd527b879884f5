package pypi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Fault is XML-RPC's error answer.
type Fault struct {
	Code int64
	Text string // printable, at most 300 bytes
}

func (f *Fault) Error() string { return fmt.Sprintf("fault %d: %s", f.Code, f.Text) }

// errDirective: a document type could define entities, and has no business here.
var errDirective = errors.New("a document type in the answer")

// methodCall builds a request body. Parameters are int64 or string.
func methodCall(method string, params ...any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(xml.Header + "<methodCall><methodName>")
	if err := xml.EscapeText(&b, []byte(method)); err != nil {
		return nil, err
	}
	b.WriteString("</methodName><params>")
	for _, p := range params {
		b.WriteString("<param><value>")
		switch p := p.(type) {
		case int64:
			// PyPI's serials fit into XML-RPC's 32 bits for now; its server
			// takes longer numbers under the same name.
			fmt.Fprintf(&b, "<int>%d</int>", p)
		case string:
			b.WriteString("<string>")
			if err := xml.EscapeText(&b, []byte(p)); err != nil {
				return nil, err
			}
			b.WriteString("</string>")
		default:
			return nil, fmt.Errorf("parameter of type %T", p)
		}
		b.WriteString("</value></param>")
	}
	b.WriteString("</params></methodCall>")
	return b.Bytes(), nil
}

// A response reads a methodResponse as a stream of tags. It knows the types that
// the journal uses (string, integer, nil, array) and structs in faults; all else,
// and anything out of its place, is an error.
type response struct {
	d      *xml.Decoder
	peeked xml.Token
}

// A scalar is one value that is no container.
type scalar struct {
	kind string // "string", "int" or "nil"
	text string
	n    int64
}

// readResponse calls value with the reader standing inside the answer's only
// <value>, and then checks that nothing follows. It returns *Fault for a fault.
func readResponse(r io.Reader, value func(*response) error) error {
	x := &response{d: xml.NewDecoder(r)}
	if err := x.open("methodResponse"); err != nil {
		return err
	}
	name, err := x.opening()
	if err != nil {
		return err
	}
	var fault *Fault
	switch name {
	case "params":
		err = x.inside("param", func() error {
			return x.inside("value", func() error { return value(x) })
		})
	case "fault":
		err = x.inside("value", func() error {
			fault, err = x.fault()
			return err
		})
	default:
		err = fmt.Errorf("unexpected <%.40s>", name)
	}
	if err == nil {
		err = errors.Join(x.close(name), x.close("methodResponse"))
	}
	if err == nil {
		err = x.end()
	}
	if err == nil && fault != nil {
		return fault
	}
	return err
}

// next is the next token that carries meaning. White space does only inside text,
// which is read elsewhere.
func (x *response) next() (xml.Token, error) {
	if t := x.peeked; t != nil {
		x.peeked = nil
		return t, nil
	}
	for {
		t, err := x.d.Token()
		if err != nil {
			return nil, fmt.Errorf("reading XML: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement, xml.EndElement:
			return t, nil
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return nil, fmt.Errorf("text %.40q between tags", t)
			}
		case xml.Directive:
			return nil, errDirective
		}
	}
}

func (x *response) opening() (string, error) {
	t, err := x.next()
	if err != nil {
		return "", err
	}
	if s, ok := t.(xml.StartElement); ok {
		return s.Name.Local, nil
	}
	return "", fmt.Errorf("unexpected </%.40s>", t.(xml.EndElement).Name.Local)
}

func (x *response) open(name string) error {
	got, err := x.opening()
	if err == nil && got != name {
		err = fmt.Errorf("unexpected <%.40s>, want <%s>", got, name)
	}
	return err
}

// close takes a closing tag; that it matches the opening one, the decoder sees to.
func (x *response) close(name string) error {
	t, err := x.next()
	if err != nil {
		return err
	}
	if s, ok := t.(xml.StartElement); ok {
		return fmt.Errorf("unexpected <%.40s>, want </%s>", s.Name.Local, name)
	}
	return nil
}

func (x *response) inside(name string, f func() error) error {
	if err := x.open(name); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return x.close(name)
}

// more reports whether another element follows before the closing tag.
func (x *response) more() (bool, error) {
	t, err := x.next()
	if err != nil {
		return false, err
	}
	x.peeked = t
	_, ok := t.(xml.StartElement)
	return ok, nil
}

func (x *response) end() error {
	for {
		t, err := x.d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading XML: %w", err)
		}
		if c, ok := t.(xml.CharData); !ok || len(bytes.TrimSpace(c)) > 0 {
			return errors.New("something follows the answer")
		}
	}
}

// each calls f, inside each <value> of an array in turn.
func (x *response) each(f func() error) error {
	return x.inside("array", func() error {
		return x.inside("data", func() error {
			for {
				more, err := x.more()
				if err != nil || !more {
					return err
				}
				if err := x.inside("value", f); err != nil {
					return err
				}
			}
		})
	})
}

// scalar reads what stands inside a <value>: a typed element, or bare text, which
// is a string.
func (x *response) scalar() (scalar, error) {
	text, t, err := x.text()
	if err != nil {
		return scalar{}, err
	}
	start, typed := t.(xml.StartElement)
	if !typed {
		x.peeked = t
		return scalar{kind: "string", text: text}, nil
	}
	if strings.TrimSpace(text) != "" {
		return scalar{}, fmt.Errorf("text %.40q beside <%.40s>", text, start.Name.Local)
	}
	text, t, err = x.text()
	if err != nil {
		return scalar{}, err
	}
	if s, ok := t.(xml.StartElement); ok {
		return scalar{}, fmt.Errorf("unexpected <%.40s> in <%.40s>", s.Name.Local, start.Name.Local)
	}
	switch start.Name.Local {
	case "string":
		return scalar{kind: "string", text: text}, nil
	case "int", "i4", "i8":
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return scalar{}, fmt.Errorf("%.40q is no integer", text)
		}
		return scalar{kind: "int", n: n}, nil
	case "nil":
		if strings.TrimSpace(text) != "" {
			return scalar{}, errors.New("nil with a value")
		}
		return scalar{kind: "nil"}, nil
	}
	return scalar{}, fmt.Errorf("unexpected type <%.40s>", start.Name.Local)
}

// text reads character data, and the tag that ends it.
func (x *response) text() (string, xml.Token, error) {
	var b strings.Builder
	for {
		t, err := x.d.Token()
		if err != nil {
			return "", nil, fmt.Errorf("reading XML: %w", err)
		}
		switch t := t.(type) {
		case xml.CharData:
			b.Write(t)
		case xml.StartElement, xml.EndElement:
			return b.String(), t, nil
		case xml.Directive:
			return "", nil, errDirective
		}
	}
}

// fault reads the struct {faultCode, faultString}.
func (x *response) fault() (*Fault, error) {
	f := new(Fault)
	err := x.inside("struct", func() error {
		for members := 0; ; members++ {
			more, err := x.more()
			if err != nil || !more {
				return err
			}
			if members == 8 {
				return errors.New("a fault with too many members")
			}
			if err := x.inside("member", func() error { return x.member(f) }); err != nil {
				return err
			}
		}
	})
	return f, err
}

func (x *response) member(f *Fault) error {
	if err := x.open("name"); err != nil {
		return err
	}
	name, t, err := x.text()
	if err != nil {
		return err
	}
	if _, ok := t.(xml.EndElement); !ok {
		return errors.New("a tag in the name of a member")
	}
	return x.inside("value", func() error {
		v, err := x.scalar()
		switch {
		case err != nil:
			return err
		case name == "faultCode" && v.kind == "int":
			f.Code = v.n
		case name == "faultString" && v.kind == "string":
			f.Text = printable(v.text, 300)
		default:
			return fmt.Errorf("unexpected member %.40q", name)
		}
		return nil
	})
}
