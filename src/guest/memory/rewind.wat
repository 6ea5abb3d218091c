;; The rewind's inner loops. `rewind-module.ts` holds the assembled bytes; `npm run build:wat` writes it.
;;
;; Four memories: the interpreter's, a copy of the parts of it that are not zero at the baseline, room for a difference, and the list of the pages
;; that may differ (`page-list.ts`): two words for each page, where it lies in the heap and in the image; before the list half a word for each page of the
;; heap, its age. Comparing first and storing only what differs halves the memory traffic, and an execution touches few lines of the cache.
(module
  (import "rewind" "heap" (memory $heap 1))
  (import "rewind" "image" (memory $image 1))
  (import "rewind" "blocks" (memory $blocks 1))
  (import "rewind" "pages" (memory $pages 1))

  ;; Makes the pages that the list names from `first` to `entry` what the image says, the last first, 64 bytes at a time. A page that differed gets the age 0,
  ;; each other is one older. Returns how many differed.
  (func (export "rewind") (param $first i32) (param $entry i32) (result i32)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $from i32) (local $end i32) (local $source i32) (local $differs i32) (local $changed i32)
    (block $done
      (loop $page
        (br_if $done (i32.le_u (local.get $entry) (local.get $first)))
        (local.set $entry (i32.sub (local.get $entry) (i32.const 8)))
        (local.set $from (i32.load $pages offset=0 (local.get $entry)))
        (local.set $source (i32.load $pages offset=4 (local.get $entry)))
        (local.set $end (i32.add (local.get $from) (i32.const 4096)))
        (local.set $differs (i32.const 0))
        (loop $line
          (local.set $a (v128.load $image offset=0 (local.get $source)))
          (local.set $b (v128.load $image offset=16 (local.get $source)))
          (local.set $c (v128.load $image offset=32 (local.get $source)))
          (local.set $d (v128.load $image offset=48 (local.get $source)))
          (if (v128.any_true (v128.or
                (v128.or (v128.xor (local.get $a) (v128.load $heap offset=0 (local.get $from)))
                         (v128.xor (local.get $b) (v128.load $heap offset=16 (local.get $from))))
                (v128.or (v128.xor (local.get $c) (v128.load $heap offset=32 (local.get $from)))
                         (v128.xor (local.get $d) (v128.load $heap offset=48 (local.get $from))))))
            (then
              (v128.store $heap offset=0 (local.get $from) (local.get $a))
              (v128.store $heap offset=16 (local.get $from) (local.get $b))
              (v128.store $heap offset=32 (local.get $from) (local.get $c))
              (v128.store $heap offset=48 (local.get $from) (local.get $d))
              (local.set $differs (i32.const 1))))
          (local.set $from (i32.add (local.get $from) (i32.const 64)))
          (local.set $source (i32.add (local.get $source) (i32.const 64)))
          (br_if $line (i32.ne (local.get $from) (local.get $end))))
        ;; Where its age is.
        (local.set $from (i32.shl (i32.shr_u (i32.sub (local.get $end) (i32.const 4096)) (i32.const 12)) (i32.const 1)))
        (i32.store16 $pages (local.get $from)
          (select (i32.const 0) (i32.add (i32.load16_u $pages (local.get $from)) (i32.const 1)) (local.get $differs)))
        (local.set $changed (i32.add (local.get $changed) (local.get $differs)))
        (br $page)))
    (local.get $changed))

  ;; Of the pages that the list names from `entry` to `end`: writes the number of each 256-byte block that differs from the image to $blocks at `numbers`
  ;; (u32), and the block combined with the image's by exclusive or to $blocks at `data`. Leaves out what lies from `dead` to `alive`. Returns how many differ.
  (func (export "capture") (param $entry i32) (param $end i32) (param $dead i32) (param $alive i32) (param $numbers i32) (param $data i32) (result i32)
    (local $any v128) (local $word v128) (local $from i32) (local $source i32) (local $last i32) (local $next i32) (local $count i32)
    (block $done
      (loop $page
        (br_if $done (i32.ge_u (local.get $entry) (local.get $end)))
        (local.set $from (i32.load $pages offset=0 (local.get $entry)))
        (local.set $source (i32.load $pages offset=4 (local.get $entry)))
        (local.set $last (i32.add (local.get $from) (i32.const 4096)))
        (local.set $entry (i32.add (local.get $entry) (i32.const 8)))
        (loop $block
          (local.set $next (i32.add (local.get $from) (i32.const 256)))
          (local.set $any (v128.const i64x2 0 0))
          (loop $line
            (local.set $word (v128.xor (v128.load $heap (local.get $from)) (v128.load $image (local.get $source))))
            (v128.store $blocks (local.get $data) (local.get $word))
            (local.set $any (v128.or (local.get $any) (local.get $word)))
            (local.set $from (i32.add (local.get $from) (i32.const 16)))
            (local.set $source (i32.add (local.get $source) (i32.const 16)))
            (local.set $data (i32.add (local.get $data) (i32.const 16)))
            (br_if $line (i32.ne (local.get $from) (local.get $next))))
          (if (i32.and (v128.any_true (local.get $any))
                       (i32.or (i32.lt_u (i32.sub (local.get $from) (i32.const 256)) (local.get $dead))
                               (i32.ge_u (i32.sub (local.get $from) (i32.const 256)) (local.get $alive))))
            (then
              (i32.store $blocks (local.get $numbers) (i32.shr_u (i32.sub (local.get $from) (i32.const 256)) (i32.const 8)))
              (local.set $numbers (i32.add (local.get $numbers) (i32.const 4)))
              (local.set $count (i32.add (local.get $count) (i32.const 1))))
            (else
              ;; The next block goes over it.
              (local.set $data (i32.sub (local.get $data) (i32.const 256)))))
          (br_if $block (i32.ne (local.get $from) (local.get $last))))
        (br $page)))
    (local.get $count))

  ;; Makes heap[from, to) zero and returns how many blocks of 4 KiB were not.
  (func (export "clear") (param $from i32) (param $to i32) (result i32)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128) (local $end i32) (local $changed i32)
    (block $done
      (loop $block
        (br_if $done (i32.ge_u (local.get $from) (local.get $to)))
        (local.set $a (v128.const i64x2 0 0))
        (local.set $b (v128.const i64x2 0 0))
        (local.set $c (v128.const i64x2 0 0))
        (local.set $d (v128.const i64x2 0 0))
        (local.set $end (i32.add (local.get $from) (i32.const 4096)))
        (loop $line
          (local.set $a (v128.or (local.get $a) (v128.load $heap offset=0 (local.get $from))))
          (local.set $b (v128.or (local.get $b) (v128.load $heap offset=16 (local.get $from))))
          (local.set $c (v128.or (local.get $c) (v128.load $heap offset=32 (local.get $from))))
          (local.set $d (v128.or (local.get $d) (v128.load $heap offset=48 (local.get $from))))
          (local.set $a (v128.or (local.get $a) (v128.load $heap offset=64 (local.get $from))))
          (local.set $b (v128.or (local.get $b) (v128.load $heap offset=80 (local.get $from))))
          (local.set $c (v128.or (local.get $c) (v128.load $heap offset=96 (local.get $from))))
          (local.set $d (v128.or (local.get $d) (v128.load $heap offset=112 (local.get $from))))
          (local.set $from (i32.add (local.get $from) (i32.const 128)))
          (br_if $line (i32.lt_u (local.get $from) (local.get $end))))
        (if (v128.any_true (v128.or (v128.or (local.get $a) (local.get $b)) (v128.or (local.get $c) (local.get $d))))
          (then
            (memory.fill $heap (i32.sub (local.get $from) (i32.const 4096)) (i32.const 0) (i32.const 4096))
            (local.set $changed (i32.add (local.get $changed) (i32.const 1)))))
        (br $block)))
    (local.get $changed))

  ;; Writes the numbers of the 256-byte blocks of heap[from, to) that differ from image[source, …) to $blocks at `out`
  ;; (u32 each); returns how many. With `source` -1 the comparison is with zero.
  (func (export "diff") (param $from i32) (param $to i32) (param $source i32) (param $out i32) (result i32)
    (local $a v128) (local $end i32) (local $count i32) (local $compare i32)
    (local.set $compare (i32.ne (local.get $source) (i32.const -1)))
    (block $done
      (loop $block
        (br_if $done (i32.ge_u (local.get $from) (local.get $to)))
        (local.set $a (v128.const i64x2 0 0))
        (local.set $end (i32.add (local.get $from) (i32.const 256)))
        (if (local.get $compare)
          (then
            (loop $line
              (local.set $a (v128.or (local.get $a) (v128.or
                (v128.xor (v128.load $heap offset=0 (local.get $from)) (v128.load $image offset=0 (local.get $source)))
                (v128.xor (v128.load $heap offset=16 (local.get $from)) (v128.load $image offset=16 (local.get $source))))))
              (local.set $from (i32.add (local.get $from) (i32.const 32)))
              (local.set $source (i32.add (local.get $source) (i32.const 32)))
              (br_if $line (i32.lt_u (local.get $from) (local.get $end)))))
          (else
            (loop $line
              (local.set $a (v128.or (local.get $a) (v128.or
                (v128.load $heap offset=0 (local.get $from)) (v128.load $heap offset=16 (local.get $from)))))
              (local.set $from (i32.add (local.get $from) (i32.const 32)))
              (br_if $line (i32.lt_u (local.get $from) (local.get $end))))))
        (if (v128.any_true (local.get $a))
          (then
            (i32.store $blocks (local.get $out) (i32.shr_u (i32.sub (local.get $end) (i32.const 256)) (i32.const 8)))
            (local.set $out (i32.add (local.get $out) (i32.const 4)))
            (local.set $count (i32.add (local.get $count) (i32.const 1)))))
        (br $block)))
    (local.get $count)))
