//! E-mail over SMTP.

use crate::Tried;
use crate::config::Receiver;
use crate::words::{one_line, priority, summary, title};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport as _};
use plimsoll_api::notify::Message;

/// What the file says can be used.
pub(crate) fn check(receiver: &Receiver) -> Result<(), String> {
    receiver.host_port()?;
    let mut all = receiver.to.iter().chain([&receiver.from]);
    match all.find(|a| a.parse::<Mailbox>().is_err()) {
        Some(bad) => Err(format!("expected an e-mail address, found \"{bad}\"")),
        None => Ok(()),
    }
}

/// Tries once.
pub(crate) fn send(receiver: &Receiver, message: &Message) -> Tried {
    let mail = match mail(receiver, message) {
        Ok(mail) => mail,
        Err(why) => return Tried::refused(why),
    };
    let transport = match transport(receiver) {
        Ok(transport) => transport,
        Err(why) => return Tried::later(why),
    };
    match transport.send(&mail) {
        Ok(answer) => {
            let words: Vec<&str> = answer.message().collect();
            Tried::delivered(one_line(&format!("{} {}", answer.code(), words.join(" "))))
        }
        Err(e) if e.is_permanent() => Tried::refused(one_line(&e.to_string())),
        Err(e) => Tried::later(one_line(&e.to_string())),
    }
}

fn mail(receiver: &Receiver, message: &Message) -> Result<lettre::Message, String> {
    let mailbox = |a: &String| a.parse::<Mailbox>().map_err(|e| e.to_string());
    let from = mailbox(&receiver.from)?;
    let domain = from.email.domain().to_owned();
    let subject: String = format!("[{}] {}", priority(message), title(message))
        .chars()
        .take(200)
        .collect();
    let key: String = message
        .key
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let mut builder: MessageBuilder = lettre::Message::builder()
        .from(from)
        .subject(one_line(&subject))
        // the same when it is sent again: mail programs show it once
        .message_id(Some(format!("<{key}@{domain}>")))
        .header(ContentType::TEXT_PLAIN);
    for to in &receiver.to {
        builder = builder.to(mailbox(to)?);
    }
    let whole = match &message.alert {
        Some(alert) => plimsoll_api::json::line(alert),
        None => plimsoll_api::json::line(&message.groups),
    };
    builder
        .body(format!("{}\n\n{whole}\n", summary(message)))
        .map_err(|e| e.to_string())
}

fn transport(receiver: &Receiver) -> Result<SmtpTransport, String> {
    let (host, port) = receiver.host_port()?;
    let mut builder = SmtpTransport::builder_dangerous(host)
        .port(port)
        .timeout(Some(receiver.timeout()));
    if receiver.tls != "none" {
        let mut tls = TlsParameters::builder(host.to_owned());
        if let Some(pem) = receiver.authorities()? {
            let authority = Certificate::from_pem(&pem).map_err(|e| e.to_string())?;
            tls = tls.add_root_certificate(authority);
        }
        let tls = tls.build_rustls().map_err(|e| e.to_string())?;
        builder = builder.tls(match receiver.tls.as_str() {
            "starttls" => Tls::Required(tls),
            _ => Tls::Wrapper(tls),
        });
    }
    if let (Some(user), Some(secret)) = (&receiver.user, receiver.secret()) {
        builder = builder.credentials(Credentials::new(user.clone(), secret.to_owned()));
    }
    Ok(builder.build())
}
