;; The rewind's inner loops. `rewind-module.ts` holds the assembled bytes; `npm run build:wat` writes it.
;;
;; Three memories: the interpreter's, a copy of the parts of it that are not zero at the baseline, and room for a list. Comparing first and
;; copying only what differs halves the memory traffic, and an execution touches few blocks.
(module
  (import "rewind" "heap" (memory $heap 1))
  (import "rewind" "image" (memory $image 1))
  (import "rewind" "blocks" (memory $blocks 1))

  ;; Makes heap[from, to) equal to image[source, …) and returns how many blocks of 4 KiB differed.
  ;; `from` and `to` are multiples of 4096.
  (func (export "restore") (param $from i32) (param $to i32) (param $source i32) (result i32)
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
          (local.set $a (v128.or (local.get $a) (v128.xor (v128.load $heap offset=0 (local.get $from)) (v128.load $image offset=0 (local.get $source)))))
          (local.set $b (v128.or (local.get $b) (v128.xor (v128.load $heap offset=16 (local.get $from)) (v128.load $image offset=16 (local.get $source)))))
          (local.set $c (v128.or (local.get $c) (v128.xor (v128.load $heap offset=32 (local.get $from)) (v128.load $image offset=32 (local.get $source)))))
          (local.set $d (v128.or (local.get $d) (v128.xor (v128.load $heap offset=48 (local.get $from)) (v128.load $image offset=48 (local.get $source)))))
          (local.set $a (v128.or (local.get $a) (v128.xor (v128.load $heap offset=64 (local.get $from)) (v128.load $image offset=64 (local.get $source)))))
          (local.set $b (v128.or (local.get $b) (v128.xor (v128.load $heap offset=80 (local.get $from)) (v128.load $image offset=80 (local.get $source)))))
          (local.set $c (v128.or (local.get $c) (v128.xor (v128.load $heap offset=96 (local.get $from)) (v128.load $image offset=96 (local.get $source)))))
          (local.set $d (v128.or (local.get $d) (v128.xor (v128.load $heap offset=112 (local.get $from)) (v128.load $image offset=112 (local.get $source)))))
          (local.set $from (i32.add (local.get $from) (i32.const 128)))
          (local.set $source (i32.add (local.get $source) (i32.const 128)))
          (br_if $line (i32.lt_u (local.get $from) (local.get $end))))
        (if (v128.any_true (v128.or (v128.or (local.get $a) (local.get $b)) (v128.or (local.get $c) (local.get $d))))
          (then
            (memory.copy $heap $image
              (i32.sub (local.get $from) (i32.const 4096)) (i32.sub (local.get $source) (i32.const 4096)) (i32.const 4096))
            (local.set $changed (i32.add (local.get $changed) (i32.const 1)))))
        (br $block)))
    (local.get $changed))

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
    (local.get $count))

  ;; Writes the blocks of 256 bytes whose numbers $blocks lists from `list` to `end` (u32 each) to $blocks at `out`, each combined by
  ;; exclusive or with what lies `shift` bytes further in the image. With `zero` not 0 they are compared with zero, and so are as they are.
  (func (export "gather") (param $list i32) (param $end i32) (param $shift i32) (param $zero i32) (param $out i32)
    (local $from i32) (local $last i32)
    (block $done
      (loop $block
        (br_if $done (i32.ge_u (local.get $list) (local.get $end)))
        (local.set $from (i32.shl (i32.load $blocks (local.get $list)) (i32.const 8)))
        (local.set $list (i32.add (local.get $list) (i32.const 4)))
        (if (local.get $zero)
          (then
            (memory.copy $blocks $heap (local.get $out) (local.get $from) (i32.const 256))
            (local.set $out (i32.add (local.get $out) (i32.const 256))))
          (else
            (local.set $last (i32.add (local.get $from) (i32.const 256)))
            (loop $line
              (v128.store $blocks offset=0 (local.get $out) (v128.xor
                (v128.load $heap offset=0 (local.get $from)) (v128.load $image offset=0 (i32.add (local.get $from) (local.get $shift)))))
              (v128.store $blocks offset=16 (local.get $out) (v128.xor
                (v128.load $heap offset=16 (local.get $from)) (v128.load $image offset=16 (i32.add (local.get $from) (local.get $shift)))))
              (local.set $from (i32.add (local.get $from) (i32.const 32)))
              (local.set $out (i32.add (local.get $out) (i32.const 32)))
              (br_if $line (i32.lt_u (local.get $from) (local.get $last))))))
        (br $block)))))
