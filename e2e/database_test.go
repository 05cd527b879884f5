package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // to read what monitor has written, without its code
)

// A table is an answer of a database: its rows as text, sorted.
type table []string

// openDatabase reads a database beside its writer.
func openDatabase(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro&_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func ask(t *testing.T, db *sql.DB, query string) table {
	t.Helper()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var out table
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(sql.NullString)
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		var row []string
		for i, v := range values {
			text := "NULL"
			if v := v.(*sql.NullString); v.Valid {
				text = v.String
			}
			row = append(row, columns[i]+"="+text)
		}
		out = append(out, strings.Join(row, " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	slices.Sort(out)
	return out
}

// number asks for one number.
func number(t *testing.T, db *sql.DB, query string) int {
	t.Helper()
	rows := ask(t, db, query)
	if len(rows) != 1 {
		t.Fatalf("%s: %d rows", query, len(rows))
	}
	_, text, _ := strings.Cut(rows[0], "=")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// differences lists what only one of two sorted tables has.
func differences(ours, theirs table) []string {
	count := make(map[string]int)
	for _, row := range ours {
		count[row]++
	}
	for _, row := range theirs {
		count[row]--
	}
	var out []string
	for row, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d %.300s", n, row))
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return out
}
