package proxy

import (
	"sync"
	"sync/atomic"
)

// block is a buffer from a pool.
type block struct {
	b    []byte
	size blockSize
}

type blockSize uint8

// The sizes: for most heads; for a body in pieces; for an answer that is held
// back, with its head, or a body that is large.
const (
	smallBlock blockSize = iota
	middleBlock
	largeBlock
)

var blockBytes = [...]int{smallBlock: 4 << 10, middleBlock: 16 << 10, largeBlock: 72 << 10}

var blocks [len(blockBytes)]sync.Pool

// inUse are the bytes of blocks that exchanges hold. With budget of it, answers are
// not held back any more, but relayed in smaller pieces.
var inUse atomic.Int64

const budget = 64 << 20

// tight says that the budget is used up.
func tight() bool { return inUse.Load() >= budget }

// pieceFor is the size of the buffer by which n bytes, or an unknown number, are copied.
func pieceFor(n int64) blockSize {
	switch used := inUse.Load(); {
	case used >= 2*budget:
		return smallBlock
	case used >= budget || n <= int64(blockBytes[middleBlock]):
		return middleBlock
	}
	return largeBlock
}

func takeBlock(s blockSize) *block {
	inUse.Add(int64(blockBytes[s]))
	if b, ok := blocks[s].Get().(*block); ok {
		return b
	}
	return &block{make([]byte, blockBytes[s]), s}
}

// blockFor returns a block of at least n bytes; a larger one than the pools have is made.
func blockFor(n int) *block {
	for s, size := range blockBytes {
		if n <= size {
			return takeBlock(blockSize(s))
		}
	}
	inUse.Add(int64(n))
	return &block{make([]byte, n), largeBlock}
}

// give returns b to its pool; nil is let be.
func (b *block) give() {
	if b == nil {
		return
	}
	inUse.Add(-int64(len(b.b)))
	if len(b.b) == blockBytes[b.size] {
		blocks[b.size].Put(b)
	}
}
