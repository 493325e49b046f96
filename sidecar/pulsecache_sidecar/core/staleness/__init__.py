"""Staleness: how old what is served may be at most, said without comparing any two clocks.

Theory of operation
===================

**Order** comes from one counter per dataset, kept by the hub. Its values are *positions*; a higher position was given
out later. **Age** is measured by each process on its own clock only: a position that came in a reply was given out
after the process had asked (`positions`). An *epoch* names one life of the counter; positions of different epochs have
nothing to do with each other.

What is carried by an entry of the cache (`validity`): `at` and `valid`, the own-clock instant and the current position
when its request to the origin was sent; and `includes`, the highest change that it is known to contain. A change that
was stamped when the request was sent had taken effect by then, so for what was fetched `includes` = `valid`. An object
of the shared store that no stamp hits at a look-up contains every change of its tags up to the counter's value then.

**Usable** is an entry whose epoch is the present one, that no consumed stamp of its tags and no flush is later than,
and none of whose tags is in doubt (`stamps`, `view`). Forgetting stamps raises a floor below which nothing is usable.

**A write is open** from before its first byte is sent until the hub has acknowledged its change (`writes`); its *sent*
is the position seen before. The *coverage* of a publisher is the smaller of the position it had seen before it looked,
and the `sent` of its oldest open write. A *heartbeat* carries the *watermark*: the least coverage of all publishers.

**The bound** of a usable entry at this instant is `now - max(at, origin)`, where `origin` is the age origin of the
latest watermark consumed (`view.bound`). Of anything else it is `now - at`.

Why a bound is never too small
------------------------------

Claim: a usable entry E was true of the origin at some instant in [now - bound, now].

*By its own age.* The origin answered after `at`, so E was true at some instant from `at` on. That is all that is ever
claimed where the watermark may not be used.

*By the watermark.* Let W be a watermark consumed, t its age origin on our clock: W was given out at t or later. Suppose
E was not true at t: some write w, whose effect E does not contain, took effect before t. Let P be the publisher that
forwarded w, and c its coverage in W, so W <= c; and let c have been fixed at an instant s.

1. *w was open at s and held the coverage*: W <= c <= sent(w), a position seen before w's first byte was sent. So W was
   given out before w was sent, and t, which is not later than that, is before w took effect. Contradiction.
2. *w was not yet open at s*: c is a position that P had seen before s, so W was given out before s, and w took effect
   after s. Contradiction again.
3. *w was announced at s.* Its change was stamped, in the stream, before P's beat and so before W, which is appended
   atomically with the reading of all coverages. We have consumed everything up to W without a gap. The stamp was given
   out after w took effect; E's request was sent before that (else E would contain w), so `includes` < stamp, and E is
   not usable. Contradiction. For E of the shared store the script compared the same numbers.
4. *w was in doubt at s, acknowledged in this epoch*: the doubt is in the stream before W, and nothing of w's tags is
   usable until the change that ends it, which stamps them; then as in 3.
5. *The coverage of P was not in W*: P had not joined, had left, or was fenced. It joins before it forwards; it leaves
   with nothing open; it is fenced only when it is dead and what it had sent has settled, with a flush, which is later
   than w's effect and makes E unusable.
6. *P published in another epoch*: all publishers of the epoch before count as one whose coverage is the first position
   of the new one, until each of them has joined again (its writes of the old epoch then hold its coverage at 0) or is
   dead and settled. E itself is of the present epoch, so it was fetched after that first position.

What the argument needs, and who sees to it
-------------------------------------------

- *No gap in what was consumed*: each entry names the one before (`view.apply`). Begun anew, nothing is usable that does
  not include the position of the subscription.
- *Positions are never given out twice.* Redis may lose its end. Whoever was told of a lost entry finds out when it
  subscribes (and on a new server everybody subscribes before any other call); lost positions without an entry are
  leapt over; a counter seen to go back, or an epoch seen to end that is back, ends the epoch.
- *A write takes effect within `settle` of its last byte, or never.* An unknown outcome stays open until then.
- *Statements are true for ever*: coverage is fixed in its message and speaks of what took effect before a position, so
  a beat may be late, repeated or overtaken; the highest counts. A doubt that arrives after its write has ended is ended
  once more by its publisher, who reads the same stream.
- *A look-up gives out no position*: the counter's value that it returns may be seen, but its successor may not be
  counted as seen, or a change stamped with it would be taken for contained.

Own writes are seen without any hub: each completed write gets a number of the process's own order, and what was begun
before it does not contain it (`writes.admits`). What the shared store gives contains only the writes that were
acknowledged when the look-up began.

Everything here is pure: `now` and values come in, decisions go out. Fetching, sending and waiting are the engine's.
"""
