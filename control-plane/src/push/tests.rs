mod connections;
mod decode;
mod http;
mod processes;
mod proto;
mod site;
