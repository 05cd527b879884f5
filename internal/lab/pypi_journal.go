package lab

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// journalBatch is how many rows PyPI answers with at most.
const journalBatch = 50_000

type journalRow struct {
	name, version, action string
	at                    time.Time
	serial                int64
}

// note writes a row. Serials grow, and leave some out: other tables of PyPI's
// database draw from the same sequence.
func (p *PyPI) note(name, version, action string, at time.Time) {
	serial := p.lastSerial() + 1 + int64(len(p.journal)%3)
	p.journal = append(p.journal, journalRow{name: name, version: version, action: charRefs(action), at: at, serial: serial})
	if pr := p.projects[normalize(name)]; pr != nil {
		pr.serial = serial
	}
}

func (p *PyPI) lastSerial() int64 {
	if n := len(p.journal); n > 0 {
		return p.journal[n-1].serial
	}
	return 999
}

// LastSerial is the newest serial of the journal.
func (p *PyPI) LastSerial() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastSerial()
}

// charRefs writes what is not ASCII as XML does, which PyPI does to actions before
// they are escaped a second time on their way.
func charRefs(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 {
			b.WriteByte(byte(r))
		} else {
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}

// An rpcLimit is how many calls are answered within a span of time; 0: all.
type rpcLimit struct {
	calls int
	per   time.Duration

	start time.Time
	used  int
}

// LimitCalls has the journal answer so many calls within a span of time and the
// others with the fault that PyPI's limiter makes; 0 calls ends it.
func (p *PyPI) LimitCalls(calls int, per time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = rpcLimit{calls: calls, per: per}
}

// exceeded counts a call, and says for how long no other will be answered.
func (l *rpcLimit) exceeded(now time.Time) (time.Duration, bool) {
	if l.calls == 0 {
		return 0, false
	}
	if now.Sub(l.start) >= l.per {
		l.start, l.used = now, 0
	}
	l.used++
	return l.start.Add(l.per).Sub(now), l.used > l.calls
}

const (
	rpcBegin = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n"
	rpcEnd   = "</param>\n</params>\n</methodResponse>\n"
)

func (p *PyPI) serveRPC(w http.ResponseWriter, r *http.Request) {
	var call struct {
		Method string `xml:"methodName"`
		Since  string `xml:"params>param>value>int"`
	}
	if err := xml.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := p.call(call.Method, call.Since)
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.Write(answer)
}

func (p *PyPI) call(method, since string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait, over := p.limit.exceeded(p.clock()); over {
		return fault(fmt.Sprintf("HTTPTooManyRequests: The action could not be performed because there were too many requests by the client. Limit may reset in %d seconds.", int(wait.Seconds())+1))
	}
	var b bytes.Buffer
	b.WriteString(rpcBegin)
	switch method {
	case "changelog_last_serial":
		fmt.Fprintf(&b, "<value><int>%d</int></value>\n", p.lastSerial())
	case "changelog_since_serial":
		n, err := strconv.ParseInt(since, 10, 64)
		if err != nil {
			return fault("XMLRPCWrappedError: argument is no number")
		}
		writeRows(&b, p.since(n))
	case "list_packages_with_serial":
		b.WriteString("<value><struct>\n")
		for _, key := range p.sorted() {
			pr := p.projects[key]
			fmt.Fprintf(&b, "<member>\n<name>%s</name>\n<value><int>%d</int></value>\n</member>\n", escapeXML(pr.name), pr.serial)
		}
		b.WriteString("</struct></value>\n")
	default:
		return fault("RuntimeError: " + method + " is not served any more")
	}
	b.WriteString(rpcEnd)
	return b.Bytes()
}

// since are the rows beyond a serial, a batch at most.
func (p *PyPI) since(serial int64) []journalRow {
	from, _ := slices.BinarySearchFunc(p.journal, serial+1, func(r journalRow, s int64) int { return int(r.serial - s) })
	rows := p.journal[from:]
	return rows[:min(len(rows), journalBatch)]
}

func writeRows(b *bytes.Buffer, rows []journalRow) {
	b.WriteString("<value><array><data>\n")
	for _, j := range rows {
		version := "<nil/>"
		if j.version != "" {
			version = "<string>" + escapeXML(j.version) + "</string>"
		}
		fmt.Fprintf(b, "<value><array><data>\n<value><string>%s</string></value>\n<value>%s</value>\n<value><int>%d</int></value>\n<value><string>%s</string></value>\n<value><int>%d</int></value>\n</data></array></value>\n",
			escapeXML(j.name), version, j.at.Unix(), escapeXML(j.action), j.serial)
	}
	b.WriteString("</data></array></value>\n")
}

// fault is how XML-RPC refuses, under status 200.
func fault(text string) []byte {
	return fmt.Appendf(nil, "<?xml version='1.0'?>\n<methodResponse>\n<fault>\n<value><struct>\n<member>\n<name>faultCode</name>\n<value><int>-32500</int></value>\n</member>\n<member>\n<name>faultString</name>\n<value><string>%s</string></value>\n</member>\n</struct></value>\n</fault>\n</methodResponse>\n", escapeXML(text))
}

func escapeXML(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}
