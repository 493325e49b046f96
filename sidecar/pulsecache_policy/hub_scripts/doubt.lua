#!lua flags=allow-oom
-- doubt: a write may take effect at any moment; until it is resolved nothing with these tags is stored or served.
--   ARGV: epoch | publisher | write | tags | nonce | keep (entries)
--   reply: stamp, id of the entry
-- Entry: k=d, s=stamp, t=tags, r=write. Again for the same write: these tags take the place of the former.
local epoch, publisher, write, tags, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local refusal = foreign(epoch) or unknown(publisher)
if refusal then
  return refusal
end
local stamp = give_position()
local names = cjson.decode(tags)
end_doubt(publisher, write)
local doubts = doubts_of(publisher)
doubts[write] = names
keep_doubts(publisher, doubts)
count_doubt(names, 1)
stamp_tags(names, stamp)
return { stamp, append(epoch, nonce, keep, 'd', stamp, 't', tags, 'r', write) }
