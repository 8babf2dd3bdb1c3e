-- Gives the checkpoint from which a new leader reads on; makes it where there is none.
--
-- KEYS  checkpoint, stream
-- ARGV  where to begin: '$' after what is there now, else after this id
-- reply the id of the last entry that was processed
--
-- Runs behind the fence: from here on no older epoch can move what was read. A checkpoint that
-- begins at '$' is kept at once, so that whoever leads next does not begin at a later '$'.
-- `try` stands before this text.

local id = try('HGET', KEYS[1], 'id')
if id then return id end

local info = {}
local found = try('XINFO', 'STREAM', KEYS[2])
if found.err then
  if not string.find(found.err, 'no such key', 1, true) then return found end
else
  for i = 1, #found, 2 do info[found[i]] = found[i + 1] end
end

-- 'read' counts, as the stream's own counter does, all entries up to the checkpoint. Where it
-- cannot be known, as on servers before 7.0, it is left out.
local added = info['entries-added'] or (not info['length'] and 0)
local read = nil
if ARGV[1] == '$' then
  id = info['last-generated-id'] or '0-0'
  read = added
else
  id = ARGV[1]
  if id == '0-0' and added then read = added - (info['length'] or 0) end
end
local fields = {'id', id}
if read then fields = {'id', id, 'read', string.format('%.0f', read)} end
local made = try('HSET', KEYS[1], unpack(fields))
if type(made) == 'table' then return made end
return id
