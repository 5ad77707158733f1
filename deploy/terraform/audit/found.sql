-- Could somebody else have had them?
SELECT called, found, call, outcome, who, source, endpoint, key, object, context, eventid
FROM audit
WHERE found <> ''
ORDER BY called, call, eventid
