package proxy

import "sync"

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

func takeBlock(s blockSize) *block {
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
	return &block{make([]byte, n), largeBlock}
}

// give returns b to its pool; nil is let be.
func (b *block) give() {
	if b != nil && len(b.b) == blockBytes[b.size] {
		blocks[b.size].Put(b)
	}
}
