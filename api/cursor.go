package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// cursor makes an opaque text of where a page ends: base64url of a JSON list.
func cursor(parts ...any) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // numbers and texts
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// readCursor reads one back. Whatever cursor did not make is refused.
func readCursor(text string, parts ...any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	var list []json.RawMessage
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err == nil && len(list) != len(parts) {
		err = fmt.Errorf("%d parts", len(list))
	}
	for i := range parts {
		if err != nil {
			break
		}
		if bytes.Equal(list[i], []byte("null")) {
			err = fmt.Errorf("part %d is missing", i)
			break
		}
		err = json.Unmarshal(list[i], parts[i])
	}
	if err != nil {
		return fmt.Errorf("%w: the cursor is none that an answer to this question gave; begin without it", ErrAsked)
	}
	return nil
}
