// Command coffer is Coffer: the server and its command line.
package main

import (
	"context"
	"os"

	"github.com/cofferhq/coffer/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.FromProcess()))
}
