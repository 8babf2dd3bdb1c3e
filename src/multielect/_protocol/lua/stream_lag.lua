-- Tells where streams and their checkpoints stand. Writes nothing.
--
-- KEYS  of each partition: checkpoint, stream
-- reply for each partition: the checkpoint's id and count of entries, the stream's length, first
--       id, last id and count of entries. An id that there is none of is '', a count -1; so is the
--       length of what is no stream. An error where this user may not ask
--
-- `try` stands before this text.

local function is_refused(reply)
  return reply.err and not string.find(reply.err, '^WRONGTYPE') and not string.find(reply.err, 'no such key', 1, true)
end

local replies = {}
for i = 1, #KEYS, 2 do
  local here = try('HMGET', KEYS[i], 'id', 'read')
  if is_refused(here) then return here end
  if here.err then here = {} end
  local info = {}
  local found = try('XINFO', 'STREAM', KEYS[i + 1])
  if is_refused(found) then return found end
  if not found.err then
    for n = 1, #found, 2 do info[found[n]] = found[n + 1] end
  elseif string.find(found.err, '^WRONGTYPE') then
    info['length'] = -1
  end
  local first = info['first-entry']
  replies[#replies + 1] = {
    here[1] or '', tonumber(here[2] or -1), info['length'] or 0, first and first[1] or '',
    info['last-generated-id'] or '0-0', info['entries-added'] or -1,
  }
end
return replies
