package metrics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Show returns all metrics: for "prometheus" and "openmetrics" as text, for ""
// in Vault's JSON shape. Another format is an error.
func (m *Metrics) Show(format string) (contentType string, body []byte, err error) {
	var encoding expfmt.Format
	switch format {
	case "prometheus":
		encoding = expfmt.NewFormat(expfmt.TypeTextPlain)
	case "openmetrics":
		encoding = expfmt.NewFormat(expfmt.TypeOpenMetrics)
	case "":
	default:
		return "", nil, fmt.Errorf("the format %q is not known; leave it out for JSON, or ask for \"prometheus\"", format)
	}
	families, err := m.registry.Gather()
	if err != nil {
		return "", nil, fmt.Errorf("gather the metrics: %w", err)
	}
	if format == "" {
		body, err := json.Marshal(summarize(families, time.Now()))
		return "application/json", body, err
	}
	var out bytes.Buffer
	encoder := expfmt.NewEncoder(&out, encoding)
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return "", nil, fmt.Errorf("write the metric %s: %w", f.GetName(), err)
		}
	}
	if closer, ok := encoder.(expfmt.Closer); ok {
		if err := closer.Close(); err != nil {
			return "", nil, fmt.Errorf("write the metrics: %w", err)
		}
	}
	return string(encoding), out.Bytes(), nil
}

// ServeHTTP shows the metrics to a scraper without a token, where a listener
// allows that.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	contentType, body, err := m.Show(r.URL.Query().Get("format"))
	status := http.StatusOK
	if err != nil {
		status, contentType = http.StatusBadRequest, "application/json"
		body, _ = json.Marshal(map[string][]string{"errors": {err.Error()}})
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the scraper may be gone
}

// Summary is the shape in which Vault answers sys/metrics without a format.
type Summary struct {
	Timestamp string   `json:"Timestamp"`
	Gauges    []Gauge  `json:"Gauges"`
	Points    []Point  `json:"Points"`
	Counters  []Sample `json:"Counters"`
	Samples   []Sample `json:"Samples"`
}

// Gauge is a value that goes up and down.
type Gauge struct {
	Name   string            `json:"Name"`
	Value  float64           `json:"Value"`
	Labels map[string]string `json:"Labels"`
}

// Point is part of the shape; there are none.
type Point struct {
	Name   string    `json:"Name"`
	Points []float64 `json:"Points"`
}

// Sample is a counter or a distribution since the server started. Min and Max of
// a distribution are bounds of its buckets.
type Sample struct {
	Name   string            `json:"Name"`
	Count  uint64            `json:"Count"`
	Rate   float64           `json:"Rate"`
	Sum    float64           `json:"Sum"`
	Min    float64           `json:"Min"`
	Max    float64           `json:"Max"`
	Mean   float64           `json:"Mean"`
	Stddev float64           `json:"Stddev"`
	Labels map[string]string `json:"Labels"`
}

func summarize(families []*dto.MetricFamily, now time.Time) Summary {
	s := Summary{
		Timestamp: now.UTC().Format("2006-01-02 15:04:05 -0700 MST"),
		Gauges:    []Gauge{}, Points: []Point{}, Counters: []Sample{}, Samples: []Sample{},
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch f.GetType() {
			case dto.MetricType_GAUGE:
				s.Gauges = append(s.Gauges, Gauge{f.GetName(), finite(metric.GetGauge().GetValue()), labels})
			case dto.MetricType_COUNTER:
				v := finite(metric.GetCounter().GetValue())
				s.Counters = append(s.Counters, Sample{Name: f.GetName(), Count: uint64(v), Sum: v, Labels: labels})
			case dto.MetricType_HISTOGRAM:
				s.Samples = append(s.Samples, distribution(f.GetName(), metric.GetHistogram(), labels))
			}
		}
	}
	return s
}

func distribution(name string, h *dto.Histogram, labels map[string]string) Sample {
	s := Sample{Name: name, Count: h.GetSampleCount(), Sum: finite(h.GetSampleSum()), Labels: labels}
	if s.Count == 0 {
		return s
	}
	s.Mean = s.Sum / float64(s.Count)
	lower, before := 0.0, uint64(0)
	first := true
	for _, b := range h.GetBucket() {
		if b.GetCumulativeCount() > before {
			if first {
				s.Min, first = lower, false
			}
			s.Max = finite(b.GetUpperBound())
		}
		lower, before = b.GetUpperBound(), b.GetCumulativeCount()
	}
	if before < s.Count {
		s.Max = lower // beyond the last bucket
	}
	return s
}

// finite keeps JSON, which has no infinities, from failing.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
