package pypi

import (
	"encoding/json"
	"fmt"
)

// A walker reads JSON piece by piece. Its object and array walk a container, so that
// only one element at a time is held besides what is kept.
type walker struct{ d *json.Decoder }

func (w walker) object(f func(key string) error) error {
	if err := w.delim('{'); err != nil {
		return err
	}
	for w.d.More() {
		t, err := w.d.Token()
		if err != nil {
			return err
		}
		if err := f(t.(string)); err != nil { // the decoder takes nothing else for a key
			return err
		}
	}
	return w.delim('}')
}

func (w walker) array(most int, f func() error) error {
	if err := w.delim('['); err != nil {
		return err
	}
	for n := 0; w.d.More(); n++ {
		if n == most {
			return fmt.Errorf("more than %d elements", most)
		}
		if err := f(); err != nil {
			return err
		}
	}
	return w.delim(']')
}

func (w walker) delim(want json.Delim) error {
	t, err := w.d.Token()
	if err == nil && t != want {
		err = fmt.Errorf("%.40q where %q should be", fmt.Sprint(t), want.String())
	}
	return err
}
