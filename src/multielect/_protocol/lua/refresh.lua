-- Extends every lease of the batch that this holder still holds.
--
-- KEYS  leader key of each election
-- ARGV  1: this holder   2: TTL in ms
-- reply {server time in ms, {n...}, {n, error, ...}}: the positions of the keys that
--       are not this holder's, and of those that are but could not be extended
--
-- A key of another type, or none, is not ours. A key that is ours and was not extended
-- (servers before 7.0 answer 0 on a replica) is no proof that the lease is lost.

local holder, ttl_ms = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- As a point in time it is what the server keeps, and what replicas are told: with PEXPIRE it
-- would write each command anew.
local end_text = string.format('%.0f', now_ms + ttl_ms)
local holders = values_of(KEYS)
local not_ours, failed = {}, {}

for i, leader_key in ipairs(KEYS) do
  if holders[i] ~= holder then
    not_ours[#not_ours + 1] = i
  else
    local extended = try('PEXPIREAT', leader_key, end_text)
    if extended ~= 1 then
      failed[#failed + 1] = i
      failed[#failed + 1] = type(extended) == 'table' and extended
        or redis.error_reply('READONLY the server did not extend the lease')
    end
  end
end
return {now_ms, not_ours, failed}
