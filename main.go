// Command trivet turns three Linux servers into the infrastructure of one site.
package main

import (
	"os"

	"trivet/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
