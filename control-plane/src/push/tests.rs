mod connections;
mod decode;
mod exponential;
mod http;
mod processes;
mod proto;
mod site;
