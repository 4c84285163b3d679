//! Measures what a target's body allocates: memory has to stay proportional to the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

/// What a body may hold at once for no input: the machines, their tables, a log.
const BASE_BYTES: isize = 256 << 10;

/// What it may hold for each byte of input. A body keeps two outcomes of up to 128 bytes an event
/// beside each other, and a slice for each byte.
const BYTES_PER_BYTE: isize = 256;

#[global_allocator]
static COUNTED: Counted = Counted;

static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

/// The system's allocator, and what is held of it.
struct Counted;

fn count(more: usize, less: usize) {
    let change = more as isize - less as isize;
    let held = HELD.fetch_add(change, Ordering::Relaxed) + change;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// Safety: all is handed through to `System` as it came; counting touches no memory.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes, layout.size());
        unsafe { System.realloc(block, layout, bytes) }
    }
}

/// Runs a body, and panics where it held more memory at once than its input accounts for.
pub fn bounded(data: &[u8], body: fn(&[u8])) {
    bounded_beside(0, data, body);
}

/// The same for a body that may hold so many bytes besides, whatever the input.
pub fn bounded_beside(queue_bytes: usize, data: &[u8], body: fn(&[u8])) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    body(data);
    let most = MOST.load(Ordering::Relaxed) - before;
    let allowed = queue_bytes as isize + BASE_BYTES + BYTES_PER_BYTE * data.len() as isize;
    assert!(most <= allowed, "{most} bytes held at once for an input of {}", data.len());
}
