#!lua flags=no-writes
-- publishers: who publishes, for whoever fences.
--   ARGV: none
--   reply: epoch, counter, then per publisher: id, coverage, beats; an empty array where there is no epoch
local epoch = field('epoch')
if not epoch then
  return {}
end
local reply = { epoch, number('n') }
for _, id in ipairs(members()) do
  reply[#reply + 1] = id
  reply[#reply + 1] = number('c:' .. id)
  reply[#reply + 1] = number('b:' .. id)
end
return reply
