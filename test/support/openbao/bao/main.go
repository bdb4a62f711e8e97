// The server of the OpenBao project, as an ordinary Go dependency, for the tests and benchmarks alone.
package main

import (
	"os"

	"github.com/openbao/openbao/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
