#!lua flags=allow-oom
-- change: stamps tags and announces the change; the tag * flushes the dataset. Anybody may, also who has not joined.
--   ARGV: epoch | publisher | tags | id of the write whose doubt this ends, or '' | nonce | keep (entries)
--   reply: stamp, id of the entry
-- Entry: k=c, s=stamp, t=tags, r=resolved write or ''.
local epoch, publisher, tags, write, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local refusal = foreign(epoch)
if refusal then
  return refusal
end
local stamp = give_position()
stamp_tags(cjson.decode(tags), stamp)
end_doubt(publisher, write)
return { stamp, append(epoch, nonce, keep, 'c', stamp, 't', tags, 'r', write) }
