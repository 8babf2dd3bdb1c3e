-- Stands before the scripts that end terms, where epochs are kept for a time after a term.
--
-- KEYS  of each election its fence key as well, after the epoch key
-- ARGV  one more, the last: how long epochs are kept, in ms
--
-- The next SET takes the expiry off: that of whoever is elected from the epoch key, and that of
-- whoever first writes under a newer epoch from the fence key.

local STRIDE = 3
local retention_ms = tonumber(ARGV[#ARGV])

-- An epoch that is ahead of the server's clock, as after that was set back, is kept until the
-- clock has passed it: else the next to be elected would get a lower one.
--
-- Nothing is told if this is refused. The right is the one that a refresh needs, and the keys were
-- granted before the script ran.
local function let_expire(place, now_ms, epoch, fence)
  local written = fence and string.match(fence, '^%d+$') and tonumber(fence) or 0
  local newest = math.max(now_ms, tonumber(epoch), written)
  local end_text = string.format('%.0f', newest + retention_ms)
  try('PEXPIREAT', KEYS[STRIDE * place - 1], end_text)
  try('PEXPIREAT', KEYS[STRIDE * place], end_text)
end

