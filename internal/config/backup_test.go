package config

import (
	"strings"
	"testing"
	"time"
)

// Backups are scheduled by a block that says where, how often, and how many.
func TestBackup(t *testing.T) {
	c := load(t, put(t, "c.hcl", storage+"backup {\n  directory = \"/backups\"\n  every = \"24h\"\n  keep = 7\n  keep_for = \"720h\"\n}\n"))
	if want := (Backup{"/backups", 24 * time.Hour, 7, 720 * time.Hour}); c.Backup != want {
		t.Errorf("%+v", c.Backup)
	}
	for block, want := range map[string]string{
		`every = "24h"`: "directory is missing", `directory = "/b"`: "every is missing",
		"directory = \"/b\"\n  every = \"24h\"":                       "keep or keep_for is missing",
		"directory = \"/b\"\n  every = \"5s\"\n  keep = 1":            "too short",
		"directory = \"/b\"\n  every = \"1h\"\n  keep = 0":            "whole number from 1",
		"directory = \"/b\"\n  every = \"1h\"\n  retain = 3":          "retain",
		"directory = \"\"\n  every = \"1h\"\n  keep = 3":              "empty",
		"directory = \"/b\"\n  every = \"soon\"\n  keep_for = \"1h\"": "soon",
	} {
		_, err := Load(Source{Paths: []string{put(t, "c.hcl", storage+"backup {\n  "+block+"\n}\n")}, Getenv: noEnv})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", block, err, want)
		}
	}
}
