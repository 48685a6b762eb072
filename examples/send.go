// Sends a message by the Redis function: go run send.go alice '{"order":7}'
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// write sends a command as RESP wants it.
func write(to io.Writer, words ...string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(word), word)
	}
	_, err := io.WriteString(to, text.String())
	return err
}

// read reads a reply: a string, a list of them, or an error of Redis.
func read(from *bufio.Reader) ([]string, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, rest := line[0], strings.TrimRight(line[1:], "\r\n")
	switch kind {
	case '-':
		return nil, fmt.Errorf("%s", rest)
	case '$', '*':
		size, err := strconv.Atoi(rest)
		if err != nil || size < 0 {
			return []string{""}, err
		}
		if kind == '$' {
			bytes := make([]byte, size+2)
			_, err := io.ReadFull(from, bytes)
			return []string{string(bytes[:size])}, err
		}
		var all []string
		for ; size > 0; size-- {
			one, err := read(from)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	}
	return []string{rest}, nil
}

func send(user, payload string) ([]string, error) {
	address := os.Getenv("REDIS_URL")
	if address == "" {
		address = "redis://127.0.0.1:6379"
	}
	server, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	connection, err := net.Dial("tcp", server.Host)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	replies := bufio.NewReader(connection)
	if password, isSet := server.User.Password(); isSet {
		if err := write(connection, "AUTH", password); err != nil {
			return nil, err
		}
		if _, err := read(replies); err != nil {
			return nil, err
		}
	}
	// Options follow the payload: "ttl", "60", "key", "order-7", "id", "o7", "expect", "online"
	if err := write(connection, "FCALL", "userwire_send", "1", "userwire:{"+user+"}", payload); err != nil {
		return nil, err
	}
	return read(replies)
}

func main() {
	reply, err := send(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "not sent:", err)
		os.Exit(1)
	}
	fmt.Printf("sent to %s sockets, number %s of %s: %s\n", reply[0], reply[1], reply[2], reply[3])
}
