/* The socket /.fly/api: connections of the machine's programs, handed to the host as they are. */
#pragma once

void api_open(void);
void api_prepare(void);
