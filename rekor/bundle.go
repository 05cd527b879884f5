package rekor

import (
	"encoding/binary"
	"fmt"

	"github.com/transparency-dev/tessera/api/layout"

	"sigtrail/monitor"
)

// maxBundle is the length of an entry bundle with every leaf at its longest.
const maxBundle = layout.EntryBundleWidth * (2 + 1<<16 - 1)

// splitBundle cuts an entry bundle (C2SP tlog-tiles: a big-endian uint16 length and
// that many bytes, repeated) with exactly width leaves. It keeps leaves skip to
// skip+len(into), whose index in the tree counts up from first. The leaves are
// slices of raw: nothing is copied.
func splitBundle(raw []byte, width int, into []monitor.Leaf, skip int, first uint64) error {
	for i := range width {
		if len(raw) < 2 {
			return fmt.Errorf("entry bundle ends at leaf %d of %d", i, width)
		}
		end := 2 + int(binary.BigEndian.Uint16(raw))
		if len(raw) < end {
			return fmt.Errorf("entry bundle: leaf %d of %d has %d bytes, %d are left", i, width, end-2, len(raw)-2)
		}
		if k := i - skip; k >= 0 && k < len(into) {
			into[k] = monitor.Leaf{Index: first + uint64(k), Data: raw[2:end:end]}
		}
		raw = raw[end:]
	}
	if len(raw) > 0 {
		return fmt.Errorf("entry bundle: %d bytes after leaf %d", len(raw), width)
	}
	return nil
}
