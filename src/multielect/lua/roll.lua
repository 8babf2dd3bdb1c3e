-- Calls the roll of a group: says that this member is there, and asks who else is.
--
-- KEYS  1: the hash of all members
-- ARGV  1: this holder   2: how long its entry lasts, in ms; 0 to leave
--       3: since when it is a member, in server ms; 0: since now
--       4: how it describes itself   5: wake-up channel
-- reply netstrings (length ':' bytes): the server's time in ms; whether this member's entry was
--       there before ('1' or '0'); then of each member its holder, how many ms its entry still
--       lasts, since when it is a member, and how it describes itself
--
-- Time is the server's alone. An entry that has ended is taken out by whoever calls next, and all
-- are told to call the roll when somebody came, left, or describes itself in another way: one
-- message, the netstring '/'. No member writes an end further ahead than a week: what does not make
-- sense is taken out, or it would keep the hash for ever, and with a large enough number all members
-- from calling.

local holder, lasts_ms, since_ms, words = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local ONE_MONTH_MS = 2678400000
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number)
  return string.format('%.0f', number)
end

local function netstring(value)
  return #value .. ':' .. value
end

local changed, was_there, last_ms = false, '0', now_ms
local members = {}

local function list(name, ends_ms, since, description)
  last_ms = math.max(last_ms, ends_ms)
  members[#members + 1] = netstring(name) .. netstring(text(ends_ms - now_ms))
    .. netstring(since) .. netstring(description)
end

local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local name = entries[i]
  local ends, since, description = string.match(entries[i + 1], '^(%d+) (%d+) (.*)$')
  local ends_ms = tonumber(ends or 0)
  if ends_ms <= now_ms or ends_ms > now_ms + ONE_MONTH_MS then
    redis.call('HDEL', KEYS[1], name)
    -- Only who was missed by others is news: this member comes again below.
    changed = changed or name ~= holder
  elseif name ~= holder then
    list(name, ends_ms, since, description)
  else
    was_there = '1'
    changed = changed or lasts_ms == 0 or description ~= words
  end
end

if lasts_ms == 0 then
  redis.call('HDEL', KEYS[1], holder)
else
  changed = changed or was_there == '0'
  if since_ms == 0 then since_ms = now_ms end
  local ends_ms = now_ms + lasts_ms
  redis.call('HSET', KEYS[1], holder, text(ends_ms) .. ' ' .. text(since_ms) .. ' ' .. words)
  list(holder, ends_ms, text(since_ms), words)
end
-- A fleet that is gone leaves nothing behind.
redis.call('PEXPIREAT', KEYS[1], text(last_ms + 1000))
if changed then redis.pcall('PUBLISH', ARGV[5], netstring('/')) end
return netstring(text(now_ms)) .. netstring(was_there) .. table.concat(members)
