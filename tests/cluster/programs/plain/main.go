// A program that knows nothing of anybody: decodes PAYLOAD (base64) and prints it backwards.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"slices"
)

func main() {
	payload, err := base64.StdEncoding.DecodeString(os.Getenv("PAYLOAD"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "PAYLOAD is not base64:", err)
		os.Exit(2)
	}
	slices.Reverse(payload)
	os.Stdout.Write(payload)
}
