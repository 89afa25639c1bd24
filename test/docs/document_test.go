// Package docs runs what the documents tell people to type, and compares what
// is printed with what they show. It holds nothing but tests.
//
// A document is Markdown. Its blocks mean:
//
//	```sh    commands, typed into one shell from the first block to the last;
//	         one with "# refused" behind it must fail, every other must not.
//	         REQUEST_ID is the request that was refused last. A server that is
//	         started goes on beside the shell, as in another terminal; started
//	         again with the same configuration, it was stopped before.
//	```text  what the block of commands or Go in front of it prints. "…" stands
//	         for anything on a line, and alone on a line for any lines. How many
//	         spaces there are does not count.
//	```go    a whole program, which is built and run.
//
// Blocks of other kinds show files. Ports and the usual directories of a machine
// are replaced by some of the test's own.
package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// block is one fenced block of a document.
type block struct {
	kind  string // sh, text, go, or another
	text  string
	shows string // the text block that follows, "" for none
	line  int    // where it begins
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns a document's blocks, with the output that each shows.
func blocks(text string) []block {
	var all []block
	for _, at := range fence.FindAllStringSubmatchIndex(text, -1) {
		b := block{kind: text[at[2]:at[3]], text: text[at[4]:at[5]], line: 1 + strings.Count(text[:at[0]], "\n")}
		if b.kind == "text" && len(all) > 0 && (all[len(all)-1].kind == "sh" || all[len(all)-1].kind == "go") {
			all[len(all)-1].shows = b.text
			continue
		}
		all = append(all, b)
	}
	return all
}

// prints says where printed differs from what a document shows, "" for nowhere.
func prints(shown, printed string) string {
	var pattern strings.Builder
	pattern.WriteString(`(?s)^`)
	for _, line := range strings.Split(strings.TrimSpace(shown), "\n") {
		if line = strings.Join(strings.Fields(line), " "); line == "…" {
			pattern.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", `[^\n]*`) + `\n`)
	}
	var plain strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(printed), "\n") {
		plain.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	if regexp.MustCompile(pattern.String() + `$`).MatchString(plain.String()) {
		return ""
	}
	return fmt.Sprintf("it shows\n%s\nand this is printed:\n%s", shown, printed)
}
