package main

import (
	"bytes"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
)

// Book is what the service renders: chapters of light markup.
type Book struct {
	title    string
	chapters []string
}

// words are what chapters are made of.
var words = strings.Fields("the scheduler runs a goroutine on a thread while another one waits for a channel and nobody " +
	"copies what the kernel already holds so that a page is cheap until somebody forgets to give the buffer back")

// newBook writes chapters of about size bytes of source: headings, paragraphs, emphasis. The same seed gives the same book.
func newBook(random *rand.Rand, chapters, size int) *Book {
	book := &Book{title: "Concurrency"}
	for len(book.chapters) < chapters {
		var text strings.Builder
		for text.Len() < size {
			text.WriteString("# " + words[random.Intn(len(words))] + "\n")
			for line := 0; line < 6 && text.Len() < size; line++ {
				for n := 0; n < 12; n++ {
					word := words[random.Intn(len(words))]
					if random.Intn(8) == 0 {
						word = "*" + word + "*"
					}
					text.WriteString(word + " ")
				}
				text.WriteString("\n")
			}
		}
		book.chapters = append(book.chapters, text.String())
	}
	return book
}

// Pool lends buffers. It counts how often it had none, and how often it got one back.
type Pool struct {
	pool          sync.Pool
	misses, given atomic.Int64
}

// NewPool returns a pool whose New counts.
func NewPool() *Pool {
	p := new(Pool)
	p.pool.New = func() any {
		p.misses.Add(1)
		return bytes.NewBuffer(nil)
	}
	return p
}

// Get lends an empty buffer.
func (p *Pool) Get() *bytes.Buffer {
	buffer := p.pool.Get().(*bytes.Buffer)
	buffer.Reset()
	return buffer
}

// Put takes a buffer back.
func (p *Pool) Put(buffer *bytes.Buffer) {
	p.given.Add(1)
	p.pool.Put(buffer)
}

// Page is one rendered chapter as the service answers it.
type Page struct {
	Title    string
	Headings []string
	Length   int
	Sum      uint32
}

// Misused renders a chapter the way the article found it: the branch for an excerpt returns without giving the buffer back,
// so that the pool stays empty and each request makes its buffer grow anew.
func (b *Book) Misused(pool *Pool, chapter int, excerpt bool) Page {
	buffer := pool.Get()
	page := b.parseChapter(buffer, chapter)
	if excerpt {
		return page // Put is missing here: this is the mistake that the lab is about
	}
	pool.Put(buffer)
	return page
}

// UsedWell renders a chapter and gives the buffer back whatever branch is taken.
func (b *Book) UsedWell(pool *Pool, chapter int, _ bool) Page {
	buffer := pool.Get()
	defer pool.Put(buffer)
	return b.parseChapter(buffer, chapter)
}

// parseChapter renders chapter into buffer. The page holds nothing of the buffer, which may be used again afterwards.
//
//go:noinline
func (b *Book) parseChapter(buffer *bytes.Buffer, chapter int) Page {
	page := Page{Title: b.title + ": " + b.chapters[chapter][2:12]}
	rest := b.chapters[chapter]
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if heading := strings.TrimPrefix(line, "# "); heading != line {
			page.Headings = append(page.Headings, heading)
			writeElement(buffer, "h2", heading)
			continue
		}
		writeElement(buffer, "p", line)
	}
	page.Length = buffer.Len()
	for _, c := range buffer.Bytes() {
		page.Sum = page.Sum*31 + uint32(c)
	}
	return page
}

// writeElement writes text as an element; stars toggle emphasis.
func writeElement(buffer *bytes.Buffer, name, text string) {
	buffer.WriteByte('<')
	buffer.WriteString(name)
	buffer.WriteByte('>')
	for open := false; ; open = !open {
		before, after, found := strings.Cut(text, "*")
		buffer.WriteString(before)
		if !found {
			break
		}
		if open {
			buffer.WriteString("</em>")
		} else {
			buffer.WriteString("<em>")
		}
		text = after
	}
	buffer.WriteString("</")
	buffer.WriteString(name)
	buffer.WriteString(">\n")
}
