package cli

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/term"

	"github.com/cofferhq/coffer/internal/sys"
)

// version is that of the source; the build adds the commit.
const version = "0.1.0-dev"

// FromProcess returns the world of this process.
func FromProcess() Env {
	home, _ := os.UserHomeDir()
	env := Env{
		Program: os.Args[0], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Home: home,
		Terminal: term.IsTerminal(int(os.Stdout.Fd())), Browse: browse, Version: built(),
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		env.Prompt = prompt
	}
	return env
}

// prompt asks on the terminal, and shows nothing of what is typed.
func prompt(question string) (string, error) {
	fmt.Fprint(os.Stderr, question)
	text, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	return string(text), err
}

// browse opens the person's browser as the system has it, and does not wait for it.
func browse(address string) error {
	opener := []string{"xdg-open"}
	switch runtime.GOOS {
	case "darwin":
		opener = []string{"open"}
	case "windows":
		opener = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	cmd := exec.Command(opener[0], append(opener[1:], address)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// built returns what is known of how this program was built.
func built() sys.Version {
	v := sys.Version{Coffer: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			v.Coffer += "+" + setting.Value[:min(12, len(setting.Value))]
		case "vcs.time":
			v.Built, _ = time.Parse(time.RFC3339, setting.Value)
		}
	}
	return v
}
