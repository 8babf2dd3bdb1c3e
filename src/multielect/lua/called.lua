-- Stands before the scripts of streams: what the server refuses is told with the command's name.

-- Calls a command as redis.pcall does. Only from 7.2 on the server says itself which command it
-- refuses to its user.
local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, "can't run this command", 1, true) then return reply end
  local name = command == 'XINFO' and 'xinfo|stream' or string.lower(command)
  return {err = reply.err .. " (the '" .. name .. "' command)"}
end

-- Returns the error with which the server would refuse a command to this user, nothing done;
-- nothing where it would not, or does not say (before 7.0).
local function refusal(...)
  if not redis.acl_check_cmd or redis.acl_check_cmd(...) then return nil end
  return try(...)
end
