-- Polls the membership of a group: says that this member is there, and asks who else is.
--
-- KEYS  1: the hash of all members   2: the plan: who was given what last
-- ARGV  1: this holder   2: how long its entry lasts, in ms; 0 to leave
--       3: since when it is a member, in server ms; 0: since now
--       4: how it describes itself   5: wake-up channel
--       6: the number of the plan that it knows; 0 for none
--       7: a plan to be kept if its number is higher than that of the one that is; or nothing
-- reply netstrings (length ':' bytes): the server's time in ms; whether this member's entry was
--       there before ('1' or '0'); the number of the plan that is kept, 0 for none, and its text
--       if that is not the number that the caller knows; then of each member its holder, how many
--       ms its entry still lasts, since when it is a member, and how it describes itself
--
-- Time is the server's alone. An entry that has ended is taken out by whoever calls next, and so is
-- one that is malformed or lasts longer than any of ours. All are told to poll the membership when
-- somebody came, left, or describes itself in another way, and when a new plan is kept: one message,
-- the netstring '/'. Without that word a member that came before the first plan was kept would go
-- by no plan until its next poll, while the others go by one.
--
-- A plan is its number, a space, and a text that is the members' own affair. What else stands in
-- its key counts as none.

local holder, lasts_ms, since_ms, words = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local MAX_MS, MAX_PLAN_BYTES = 604800000, 1048576
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
  if ends_ms <= now_ms or ends_ms > now_ms + MAX_MS then
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

local function number_of(plan)
  local digits = string.match(plan, '^(%d+) ')
  -- Longer ones are not exact in Lua.
  return digits and #digits <= 15 and tonumber(digits) or 0
end

local known, proposed = tonumber(ARGV[6]), number_of(ARGV[7])
local head = redis.pcall('GETRANGE', KEYS[2], 0, 15)
local kept = 0
if type(head) == 'table' and not string.find(head.err, '^WRONGTYPE') then
  -- A right is missing. Without the plan each member would go by one of its own.
  return head
end
if type(head) == 'string' and redis.call('STRLEN', KEYS[2]) <= MAX_PLAN_BYTES then
  kept = number_of(head)
end
if proposed > kept then
  redis.call('SET', KEYS[2], ARGV[7])
  kept, changed = proposed, true
end
local plan = ''
if kept > 0 and kept ~= known then
  plan = string.match(redis.call('GET', KEYS[2]), '^%d+ (.*)$')
end

-- A fleet that is gone leaves nothing behind.
redis.call('PEXPIREAT', KEYS[1], text(last_ms + 1000))
if kept > 0 then redis.call('PEXPIREAT', KEYS[2], text(last_ms + 1000)) end
if changed then redis.pcall('PUBLISH', ARGV[5], netstring('/')) end
return netstring(text(now_ms)) .. netstring(was_there) .. netstring(text(kept)) .. netstring(plan)
  .. table.concat(members)
