//go:build !race

package pebble

// raceFactor is what the race detector costs: it is not there.
const raceFactor = 1
