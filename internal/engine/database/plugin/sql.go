package plugin

import (
	"context"
	"database/sql"
	"net/url"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// MaxOpen is how many connections a server is given unless its settings say.
const MaxOpen = 4

// Pool sets the bounds of db by settings.
func (s Settings) Pool(db *sql.DB) {
	open := s.MaxOpen
	if open <= 0 {
		open = MaxOpen
	}
	idle := s.MaxIdle
	switch {
	case idle == 0:
		idle = open
	case idle < 0:
		idle = 0
	}
	db.SetMaxOpenConns(int(open))
	db.SetMaxIdleConns(int(min(idle, open)))
	db.SetConnMaxLifetime(s.MaxLife.Duration())
	db.SetConnMaxIdleTime(10 * time.Minute)
}

// Filled is the URL with username and password in the place of their placeholders.
func (s Settings) Filled() string {
	name, password := s.Username, s.Password
	if !s.Unescaped {
		name, password = url.PathEscape(name), url.PathEscape(password)
	}
	return strings.NewReplacer(
		"{{username}}", name, "{{password}}", password, "{{ username }}", name, "{{ password }}", password,
	).Replace(s.URL)
}

// RenderAll splits statements and puts values into them.
func (d Dialect) RenderAll(statements []string, values Values) ([]string, error) {
	single, err := d.Split(statements)
	if err != nil {
		return nil, err
	}
	for i, text := range single {
		if single[i], err = d.Render(text, values); err != nil {
			return nil, err
		}
	}
	return single, nil
}

// Transact runs statements in one transaction. When one fails, those before it are
// rolled back as far as the database can.
func Transact(ctx context.Context, db *sql.DB, statements []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, text := range statements {
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Check implements Plugin.Check for a language of statements.
func (d Dialect) Check(creation, revocation, rollback, renewal []string) error {
	known := Values{"name": "v-n", "username": "v-n", "password": "p-1", "expiration": "2006-01-02 15:04:05+0000"}
	for _, kind := range []struct {
		name       string
		statements []string
		need       []string // one of each is needed, if there is any statement
	}{
		{"creation_statements", creation, []string{"name", "password"}},
		{"revocation_statements", revocation, []string{"name"}},
		{"rollback_statements", rollback, []string{"name"}},
		{"renew_statements", renewal, []string{"name"}},
	} {
		single, err := d.Split(kind.statements)
		if err != nil {
			return fault.New(fault.Invalid, "%s: %s", kind.name, fault.From(err).Message)
		}
		for _, text := range single {
			if _, err := d.Render(text, known); err != nil {
				return fault.New(fault.Invalid, "%s: %v", kind.name, err)
			}
		}
		found := placeholders(single)
		found["name"] = found["name"] || found["username"]
		for _, need := range kind.need {
			if len(single) > 0 && !found[need] {
				return fault.New(fault.Invalid, "%s hold no {{%s}}", kind.name, need)
			}
		}
	}
	return nil
}
