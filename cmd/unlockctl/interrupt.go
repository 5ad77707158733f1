package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// interruption is the cause of a context that a signal has ended.
type interruption struct{ signal syscall.Signal }

func (i *interruption) Error() string { return fmt.Sprintf("interrupted (%v)", i.signal) }

// status is the exit status for it, as shells have it.
func (i *interruption) status() int { return 128 + int(i.signal) }

// grace is how long an interrupted command may take to leave things as they were.
// Whatever does not end by then can be ended anywhere: key derivation, waiting for a
// disk.
const grace = 2 * time.Second

// interruptible runs f with a context that ends when the user or the system wants the
// program to: ^C, a closed terminal, SIGTERM. ^\ is among them, for the traces that
// the runtime prints otherwise are of a program that handles secrets. A second one
// ends it at once.
func interruptible(f func(ctx context.Context) int) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done := make(chan int, 1)
	go func() { done <- f(ctx) }()
	var first *interruption
	select {
	case status := <-done:
		return status
	case s := <-signals:
		first = &interruption{s.(syscall.Signal)}
		cancel(first)
	}
	select {
	case status := <-done:
		return status
	case <-signals:
	case <-time.After(grace):
	}
	fmt.Fprintf(os.Stderr, "\nunlockctl: %v\n", first)
	return first.status()
}
