package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// decodeStrict reads exactly one JSON value that has only known fields.
func decodeStrict(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

// decodeEntry reads an entry line. Fields of a later version are ignored.
func decodeEntry(line []byte) (Entry, error) {
	var e Entry
	err := json.Unmarshal(line, &e)
	return e, err
}
