#!lua flags=allow-oom
-- fence: removes a publisher that is dead for certain, and ends its doubts.
--   ARGV: epoch | publisher | its beats as last seen, or '' for any | '1' to flush | nonce | keep (entries)
--   reply: 1 if removed, 0 if it was gone or has beaten since
-- It may have died between the origin's commit and its announcement: whoever cannot rule that out flushes. With the
-- flush an entry k=f, s=stamp, r=ended doubts (JSON array) is appended; without it one change per ended doubt.
-- The publisher `old-epoch` stands for all of the epoch before: fence it once each of them has joined again or is gone
-- (and `settle` has passed since the last of those ended).
local epoch, publisher, beats, flush, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local refusal = foreign(epoch)
if refusal then
  return refusal
end
if redis.call('HEXISTS', HUB, 'c:' .. publisher) == 0 then
  return 0
end
if beats ~= '' and field('b:' .. publisher) ~= beats then
  return 0
end
local doubts, ended = doubts_of(publisher), {}
for write in pairs(doubts) do
  ended[#ended + 1] = write
end
table.sort(ended)
for _, write in ipairs(ended) do
  local tags = doubts[write]
  count_doubt(tags, -1)
  if flush ~= '1' then
    local stamp = give_position()
    stamp_tags(tags, stamp)
    append(epoch, nonce, keep, 'c', stamp, 't', cjson.encode(tags), 'r', write)
  end
end
remove(publisher)
if flush == '1' then
  local stamp = give_position()
  redis.call('HSET', HUB, 'flush', int(stamp))
  append(epoch, nonce, keep, 'f', stamp, 'r', #ended == 0 and '[]' or cjson.encode(ended))
end
return 1
