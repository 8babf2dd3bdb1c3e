-- Stands before the scripts that compare what many keys hold.
--
-- A call from Lua costs the server more than what most commands do: one MGET for a batch, in
-- place of a GET a key, is a third off a refresh.

-- To look up what is global costs redis-server 7.0 a search, each time: 6 % of a refresh.
local try = redis.pcall

-- Returns the value of each key; nothing where there is none, or one of another type.
local function values_of(keys)
  local values = try('MGET', unpack(keys))
  if not values.err then return values end
  -- One key that may not be read would cost the others theirs.
  for i, key in ipairs(keys) do values[i] = try('GET', key) end
  return values
end

