mod decode;
mod http;
mod proto;
mod site;
