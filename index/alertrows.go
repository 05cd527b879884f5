package index

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const alertColumns = `a.id, a.rule, a.severity, a.index_name, a.project, a.version, a.raised, a.body`

func alertDest(a *Alert, raised *sql.NullInt64) []any {
	return []any{&a.ID, &a.Rule, &a.Severity, &a.Index, &a.Project, &a.Version, raised, &a.Body}
}

// raise stores alerts and puts the new ones into the outbox of each sink. It
// returns those.
func (t *tx) raise(alerts []Alert, sinks []string, now time.Time) (raised []Alert, err error) {
	for _, a := range alerts {
		n, err := t.exec(`INSERT OR IGNORE INTO alerts (id, rule, severity, index_name, project, version, raised, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			a.ID, a.Rule, a.Severity, a.Index, a.Project, a.Version, a.Raised.UnixMicro(), blob(a.Body))
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", a.ID, err)
		}
		if n == 0 {
			continue
		}
		raised = append(raised, a)
		for _, sink := range sinks {
			if _, err := t.exec(`INSERT OR IGNORE INTO outbox (alert_id, sink, next) VALUES (?, ?, ?)`, a.ID, sink, now.UnixMicro()); err != nil {
				return nil, fmt.Errorf("alert %s to %s: %w", a.ID, sink, err)
			}
		}
	}
	return raised, nil
}

// DueDeliveries returns what is due to be sent to a sink, the oldest alert first.
// Something sent and not marked Delivered is due again: a sink may see an alert
// twice, under the same id.
func (s *Store) DueDeliveries(ctx context.Context, sink string, now time.Time, limit int) ([]Delivery, error) {
	var due []Delivery
	err := s.each(ctx, `SELECT `+alertColumns+`, o.tries FROM outbox o JOIN alerts a ON a.id = o.alert_id
		WHERE o.sink = ? AND o.delivered IS NULL AND o.next <= ? ORDER BY a.raised, a.id LIMIT ?`,
		[]any{sink, now.UnixMicro(), limit}, func(scan scan) error {
			d := Delivery{Sink: sink}
			var raised sql.NullInt64
			if err := scan(append(alertDest(&d.Alert, &raised), &d.Tries)...); err != nil {
				return err
			}
			d.Alert.Raised = timeOf(raised)
			due = append(due, d)
			return nil
		})
	if err != nil {
		return nil, s.fail("reading the outbox", err)
	}
	return due, nil
}

// Delivered marks an alert as received by a sink.
func (s *Store) Delivered(ctx context.Context, alertID, sink string, at time.Time) error {
	return s.write(ctx, "marking an alert as delivered", func(t *tx) error {
		_, err := t.exec(`UPDATE outbox SET delivered = ?, tries = tries + 1, error = '' WHERE alert_id = ? AND sink = ? AND delivered IS NULL`, at.UnixMicro(), alertID, sink)
		return err
	})
}

// DeliveryFailed keeps why, and when to try again.
func (s *Store) DeliveryFailed(ctx context.Context, alertID, sink string, next time.Time, why string) error {
	return s.write(ctx, "putting off a delivery", func(t *tx) error {
		_, err := t.exec(`UPDATE outbox SET next = ?, tries = tries + 1, error = ? WHERE alert_id = ? AND sink = ? AND delivered IS NULL`, next.UnixMicro(), why, alertID, sink)
		return err
	})
}

// Alerts returns the alerts of a project of an index, "" for PyPI, in the order they
// were raised; all alerts of all indexes for the project "".
func (s *Store) Alerts(ctx context.Context, index, project string) ([]Alert, error) {
	query, args := `SELECT `+alertColumns+` FROM alerts a WHERE a.project = ? AND a.index_name = ? ORDER BY a.raised, a.id`, []any{project, index}
	if project == "" {
		query, args = `SELECT `+alertColumns+` FROM alerts a ORDER BY a.raised, a.id`, nil
	}
	var alerts []Alert
	err := s.each(ctx, query, args, func(scan scan) error {
		var a Alert
		var raised sql.NullInt64
		if err := scan(alertDest(&a, &raised)...); err != nil {
			return err
		}
		a.Raised = timeOf(raised)
		alerts = append(alerts, a)
		return nil
	})
	if err != nil {
		return nil, s.fail("reading alerts", err)
	}
	return alerts, nil
}
