package app

import (
	"time"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/metrics"
)

// aloneBeat is how often a node says that it lives where no other can listen.
const aloneBeat = 15 * time.Second

// openJobs makes the workers of what time drives. A kind of job is added here.
func (s *Server) openJobs(r *running) (err error) {
	o := job.Options{Engine: s.barrier, Node: s.nodeID, Offset: r.Members.Offset, Log: s.log}
	if !s.shared() {
		o.Beat = aloneBeat
	}
	r.Jobs, err = job.New(o)
	return err
}

func (s *Server) jobFigures() (all []metrics.Jobs) {
	r := s.opened.Load()
	if r == nil || s.getRunning() == nil {
		return nil
	}
	for _, q := range r.Jobs.Queues() {
		f := q.Stats()
		all = append(all, metrics.Jobs{Kind: f.Kind, Claims: f.Claims, Due: f.Due, Lag: f.Lag, Done: f.Ran, Failed: f.Failed, Lost: f.Lost})
	}
	return all
}
