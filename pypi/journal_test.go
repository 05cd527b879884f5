package pypi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"

	"sigtrail/index"
)

func parseRows(text string, since int64) (rows []index.JournalRow, err error) {
	err = readResponse(strings.NewReader(text), func(x *response) error {
		rows, err = readRows(x, since)
		return err
	})
	return rows, err
}

func TestChanges(t *testing.T) {
	version, odd := "0.4.33.dev3", "<&>\" é"
	want := []index.JournalRow{
		{Serial: 4601225, Project: "openllm", Name: "OpenLLM", Version: &version, At: time.Unix(1701280908, 0).UTC(), Action: "new release"},
		{Serial: 4601226, Project: "a-b", Name: "A__b", At: time.Unix(1701280909, 0).UTC(), Action: "add Owner " + odd},
		{Serial: 24891358000, Project: "", Name: "", Version: &odd, At: time.Unix(0, 0).UTC(), Action: ""},
	}
	var request string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		request = r.URL.Path + " " + string(b)
		w.Header().Set("Content-Type", "text/xml")
		_, _ = w.Write(rowsXML(want))
	}), nil)
	got, err := c.Changes(t.Context(), 4601224)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if w := `/pypi <?xml version="1.0" encoding="UTF-8"?>` + "\n<methodCall><methodName>changelog_since_serial</methodName><params><param><value><int>4601224</int></value></param></params></methodCall>"; request != w {
		t.Errorf("request\n%s\nwant\n%s", request, w)
	}
}

func TestMethodCallEscapes(t *testing.T) {
	b, err := methodCall("m<", "</string>&")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "<methodName>m&lt;</methodName>") || !strings.Contains(string(b), "<string>&lt;/string&gt;&amp;</string>") {
		t.Error(string(b))
	}
	if _, err := methodCall("m", 1.5); err == nil {
		t.Error("a parameter of an unknown type was taken")
	}
}

// one wraps values in the tags around an answer.
func one(value string) string {
	return "<methodResponse><params><param><value>" + value + "</value></param></params></methodResponse>"
}

const goodRow = "<value><array><data><value>n</value><value><nil/></value><value><int>1</int></value><value><string>a</string></value><value><i8>9</i8></value></data></array></value>"

func TestRowsAreStrict(t *testing.T) {
	row := func(f string) string { return one("<array><data>" + f + "</data></array>") }
	if rows, err := parseRows(row(goodRow), 0); err != nil || len(rows) != 1 || rows[0].Name != "n" || rows[0].Serial != 9 {
		t.Fatalf("%+v, %v", rows, err)
	}
	if rows, err := parseRows(row(""), 0); err != nil || len(rows) != 0 {
		t.Fatalf("no rows: %+v, %v", rows, err)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"not XML":           "PyPI is down",
		"HTML":              "<html><body>down</body></html>",
		"no rows":           one("<int>1</int>"),
		"a row of text":     row("<value>x</value>"),
		"four fields":       row(strings.Replace(goodRow, "<value><nil/></value>", "", 1)),
		"six fields":        row(strings.Replace(goodRow, "<value><nil/></value>", "<value><nil/></value><value><nil/></value>", 1)),
		"name of a number":  row(strings.Replace(goodRow, "<value>n</value>", "<value><int>1</int></value>", 1)),
		"version number":    row(strings.Replace(goodRow, "<nil/>", "<int>1</int>", 1)),
		"time as text":      row(strings.Replace(goodRow, "<int>1</int>", "1", 1)),
		"time before 1970":  row(strings.Replace(goodRow, "<int>1</int>", "<int>-1</int>", 1)),
		"time far off":      row(strings.Replace(goodRow, "<int>1</int>", "<int>9223372036854775807</int>", 1)),
		"serial too long":   row(strings.Replace(goodRow, ">9<", ">99999999999999999999<", 1)),
		"serial not larger": row(goodRow + goodRow),
		"type unknown":      row(strings.Replace(goodRow, "<nil/>", "<boolean>1</boolean>", 1)),
		"nil with text":     row(strings.Replace(goodRow, "<nil/>", "<nil>1</nil>", 1)),
		"tag in text":       row(strings.Replace(goodRow, "<string>a</string>", "<string>a<b/></string>", 1)),
		"text beside tag":   row(strings.Replace(goodRow, "<string>a</string>", "x<string>a</string>", 1)),
		"two in a value":    row(strings.Replace(goodRow, "<nil/>", "<nil/><nil/>", 1)),
		"text between":      row("x" + goodRow),
		"entity":            `<!DOCTYPE x [<!ENTITY e "a">]>` + row(strings.Replace(goodRow, ">n<", ">&e;<", 1)),
		"doctype":           "<!DOCTYPE x>" + row(goodRow),
		"torn":              row(goodRow)[:90],
		"more behind":       row(goodRow) + "<x/>",
		"two params":        strings.Replace(row(goodRow), "</param>", "</param><param></param>", 1),
		"two values":        strings.Replace(row(goodRow), "</param>", "<value/></param>", 1),
		"other root":        strings.ReplaceAll(row(goodRow), "methodResponse", "methodCall"),
	} {
		if rows, err := parseRows(text, 0); err == nil {
			t.Errorf("%s: taken as %+v", name, rows)
		}
	}
	if _, err := parseRows(row(goodRow), 9); err == nil {
		t.Error("a row that is known already was taken")
	}
}

// Odd text in one row must not stop the journal.
func TestLongFieldsAreCut(t *testing.T) {
	long := strings.Repeat("é", 5000)
	rows, err := parseRows(string(rowsXML([]index.JournalRow{{Serial: 1, Name: long, Version: &long, Action: long}})), 0)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if r := rows[0]; len(r.Name) != maxName || len(*r.Version) != maxVersion || len(r.Action) != maxAction || !strings.HasSuffix(r.Action, "é") {
		t.Errorf("lengths %d, %d, %d", len(r.Name), len(*r.Version), len(r.Action))
	}
}

func TestLastSerialIsStrict(t *testing.T) {
	var text string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }), nil)
	for _, bad := range []string{one("<string>5</string>"), one("<int>-5</int>"), one("<int></int>"), one("<nil/>"), one("<array><data></data></array>")} {
		text = bad
		if n, err := c.LastSerial(t.Context()); err == nil {
			t.Errorf("%s: serial %d", bad, n)
		}
	}
	text = one("<int>24891357</int>")
	if n, err := c.LastSerial(t.Context()); err != nil || n != 24891357 {
		t.Errorf("serial %d, %v", n, err)
	}
}

func faultXML(code int, text string) string {
	return fmt.Sprintf("<?xml version='1.0'?>\n<methodResponse>\n<fault>\n<value><struct>\n<member>\n<name>faultCode</name>\n<value><int>%d</int></value>\n</member>\n"+
		"<member>\n<name>faultString</name>\n<value><string>%s</string></value>\n</member>\n</struct></value>\n</fault>\n</methodResponse>\n", code, text)
}

func TestFault(t *testing.T) {
	var asked atomic.Int32
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, faultXML(-32500, "RuntimeError: no longer\n supported"))
	}), nil)
	var fault *Fault
	for range 2 {
		if _, err := c.LastSerial(t.Context()); !errors.As(err, &fault) || fault.Code != -32500 || fault.Text != "RuntimeError: no longer supported" {
			t.Errorf("error %v", err)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times: a fault is an answer", asked.Load())
	}
	for name, text := range map[string]string{
		"no struct":      strings.ReplaceAll(faultXML(1, "x"), "struct", "array"),
		"other member":   strings.Replace(faultXML(1, "x"), "faultCode", "faultKind", 1),
		"code as text":   strings.Replace(faultXML(1, "x"), "<int>1</int>", "<string>1</string>", 1),
		"tag in a name":  strings.Replace(faultXML(1, "x"), "faultCode", "fault<b/>Code", 1),
		"endless fields": strings.Replace(faultXML(1, "x"), "</struct>", strings.Repeat("<member><name>faultCode</name><value><int>1</int></value></member>", 9)+"</struct>", 1),
	} {
		if _, err := parseRows(text, 0); err == nil || errors.As(err, &fault) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// PyPI's rate limit is a fault under status 200. It is heeded.
func TestRateLimitFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked == 1 {
				_, _ = io.WriteString(w, faultXML(-32500, "HTTPTooManyRequests: The action could not be performed because there were too many requests by the client. Limit may reset in 90 seconds."))
				return
			}
			_, _ = io.WriteString(w, one("<int>5</int>"))
		})
		c, err := NewClient(Options{URL: "http://index.test", Rate: rate.Inf, HTTP: &http.Client{Transport: inProcess{h}}})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := c.LastSerial(t.Context()); !isLimit(err) {
				t.Errorf("error %v", err)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times inside the limit", asked)
		}
		time.Sleep(90 * time.Second)
		if n, err := c.LastSerial(t.Context()); n != 5 || err != nil {
			t.Errorf("after the limit: %d, %v", n, err)
		}
	})
	for text, want := range map[string]time.Duration{
		"HTTPTooManyRequests: no time":                     time.Minute,
		"HTTPTooManyRequests: reset in 999999999 seconds.": time.Hour,
		"HTTPTooManyRequests: reset in -4 seconds.":        time.Minute,
	} {
		if got, ok := (&Fault{Text: text}).RateLimited(); !ok || got != want {
			t.Errorf("%s: %v, %v", text, got, ok)
		}
	}
}

func BenchmarkFullBatch(b *testing.B) {
	rows := make([]index.JournalRow, fullBatch)
	v := "1.2.3"
	for i := range rows {
		rows[i] = index.JournalRow{Serial: int64(i + 1), Name: "some-project", Version: &v, At: time.Unix(1.7e9, 0), Action: "add py3 file some_project-1.2.3-py3-none-any.whl"}
	}
	text := string(rowsXML(rows))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := parseRows(text, 0); err != nil || len(got) != fullBatch {
			b.Fatal(len(got), err)
		}
	}
}
