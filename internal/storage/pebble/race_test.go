//go:build race

package pebble

// raceFactor is what the race detector costs in memory and time, by its manual
// (5-10 and 2-20 times). The limits without it are those of the program.
const raceFactor = 8
