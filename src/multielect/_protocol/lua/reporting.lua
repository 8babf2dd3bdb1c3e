-- Stands before the scripts that tell other nodes, or this one, what became of an election.

local function netstring(text)
  return #text .. ':' .. text
end

-- Adds a position and an epoch to a list, if what a counter holds is one.
local function report_epoch(list, place, counter)
  local epoch = counter and string.match(counter, '^%d+$') and tonumber(counter)
  if not epoch or epoch > 9007199254740991 then return end
  list[#list + 1] = place
  list[#list + 1] = epoch
end

local function report_failure(list, place, failure)
  list[#list + 1] = place
  list[#list + 1] = failure
end

-- Deletes keys one by one, as one that is forbidden costs the others theirs. Returns those that were
-- deleted, and their places.
local function deleted_alone(keys, places, failed)
  local deleted, deleted_places = {}, {}
  for n, key in ipairs(keys) do
    local one = try('DEL', key)
    if type(one) == 'table' then
      report_failure(failed, places[n], one)
    else
      deleted[#deleted + 1] = key
      deleted_places[#deleted_places + 1] = places[n]
    end
  end
  return deleted, deleted_places
end

-- A server that forbids PUBLISH costs the others a wait, not the batch its outcome.
local function publish(channel, message, failed)
  local told = try('PUBLISH', channel, table.concat(message))
  if type(told) == 'table' then report_failure(failed, 0, told) end
end
